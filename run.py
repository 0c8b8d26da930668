import subprocess,sys,time,signal,os
out=open("out.txt","w+")
p=subprocess.Popen([sys.executable,"-m","pytest","-c",os.devnull,"--rootdir",".","--noconftest","-p","no:cacheprovider","-n","2",sys.argv[2],"-rsf","--tb=short","test_x.py"],stdout=out,stderr=subprocess.STDOUT)
time.sleep(12)
p.send_signal(signal.SIGINT); t=time.time()
try: p.wait(float(sys.argv[1])); print("ended",p.returncode,time.time()-t)
except subprocess.TimeoutExpired: p.kill(); p.wait(); print("killed after",time.time()-t)
out.seek(0); print(out.read()[-1500:])
