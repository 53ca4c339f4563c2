/*
 * The search of the site in pages that are opened from a disk.
 *
 * The search runs in a web worker, and a browser starts no worker for a file:// page. There, this file replaces Worker by
 * a hidden frame that runs the same script and exchanges the same messages. Pages from a server are left as they are.
 */
(() => {
  "use strict"

  class FrameWorker extends EventTarget {
    /** Start the script at an address in a frame. */
    constructor(address) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      this.inside = this.frame.contentWindow
      // The script answers by postMessage(data), without a target.
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside.importScripts = (...addresses) => addresses.reduce(
        (before, next) => before.then(() => this.load(next)), Promise.resolve())
      this.started = this.load(address)
    }

    /** Load a script into the frame; a promise. */
    load(address) {
      return new Promise((resolve, reject) => {
        const script = this.frame.contentDocument.createElement("script")
        script.src = new URL(address, location.href).href
        script.onload = resolve
        script.onerror = () => reject(new Error(`${script.src} cannot be loaded`))
        this.frame.contentDocument.body.appendChild(script)
      })
    }

    /** Send a message to the script. */
    postMessage(data) {
      this.started.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })))
    }

    /** End the script. */
    terminate() {
      this.frame.remove()
    }
  }

  if (location.protocol === "file:") {
    window.Worker = FrameWorker
  }
})()
