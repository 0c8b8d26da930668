// Browsers start no worker for a page that was opened from a disk. There the search runs in a hidden frame instead.
// The name is that by which the theme's own search code knows that it runs in a frame.
window.IFrameWorker = class extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.appendChild(frame);
    const inside = frame.contentDocument;
    inside.open();
    inside.write("<!doctype html><html><head></head><body></body></html>");
    inside.close();
    this.frame = frame;
    frame.contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
    const script = inside.createElement("script");
    script.src = url;
    this.started = new Promise((resolve) => (script.onload = resolve));
    inside.head.appendChild(script);
  }

  postMessage(data) {
    this.started.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
  }

  terminate() {
    this.frame.remove();
  }
};
if (location.protocol === "file:") window.Worker = window.IFrameWorker;
