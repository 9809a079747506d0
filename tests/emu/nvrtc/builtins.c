// libnvrtc-builtins.so.13.0: stands beside the library, where NVIDIA's has its builtins. The
// runtime reads the version from the file's name, takes its size into a cached kernel's key, and
// opens it. Nothing is needed from it.
extern const char emu_builtins[];
const char emu_builtins[] = "The stand-in for NVRTC needs nothing from this file.";
