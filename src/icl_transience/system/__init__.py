"""The machine around a job: devices, progress, downloads, signals, how numbers are written."""
