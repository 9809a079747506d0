// no manifest
