import time, pytest
def test_fail(): assert 0, "told you"
@pytest.mark.parametrize("i", range(30))
def test_busy(i):
    end=time.time()+60
    while time.time()<end: time.sleep(.05)
