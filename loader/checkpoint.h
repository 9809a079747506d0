// A checkpoint: the stored tensors of a model folder, found by name, read by range.
//
// Headers are checked before anything is believed: sizes, offsets, overlaps, counts, names; nothing
// large is allocated. Tensor data stays in the files until kt_checkpoint_read. Sharded safetensors
// go through model.safetensors.index.json where there is one. Of GGUF files a pattern takes exactly
// one. Several threads may read at once.
#ifndef KT_LOADER_CHECKPOINT_H
#define KT_LOADER_CHECKPOINT_H

#include "runtime/base/dtype.h"
#include "runtime/base/os.h"

// One stored tensor as its file describes it.
typedef struct kt_stored {
    kt_str name;
    kt_str type;    // the element type as the file names it ("BF16")
    kt_dtype dtype; // u8 for a quantised type of GGUF
    int ggml_type;  // GGUF's number of the type; -1 for safetensors
    int rank;
    int64_t shape[KT_MAX_RANK]; // of a quantised type of GGUF: [n, k / block, bytes of a block]
    int file;                   // index into kt_checkpoint.files
    int64_t offset;             // bytes from the start of the file
    int64_t bytes;
} kt_stored;

typedef struct kt_checkpoint_file {
    const char *path;
    kt_os_file *file;
    const struct kt_gguf *gguf; // its metadata; NULL for safetensors
} kt_checkpoint_file;

typedef struct kt_checkpoint {
    kt_arena *arena; // holds everything but the open files
    const char *folder;
    kt_checkpoint_file *files;
    int n_files;
    kt_stored *stored; // sorted by name
    int64_t n_stored;
    int64_t bytes; // of all tensors
} kt_checkpoint;

// Which files of a folder belong to a checkpoint.
typedef struct kt_checkpoint_wanted {
    const char *folder;
    // "*.safetensors"; "*.gguf not *mmproj*": what matches the first and not the second. The files
    // are in this order.
    const kt_str *patterns;
    int n_patterns;
    kt_str file; // a GGUF file that is taken for the pattern it matches; empty: none is named
} kt_checkpoint_wanted;

// Does the name match the pattern, with its exception?
bool kt_checkpoint_match(kt_str pattern, kt_str name);
// Opens the files. Errors: EFILE (no such folder, no such file, several GGUF files for one pattern:
// the message lists what is there), EFORMAT (damaged: file, tensor, what is wrong, remedy).
kt_status kt_checkpoint_open_files(kt_arena *arena, const kt_checkpoint_wanted *wanted,
    kt_checkpoint *out, kt_err *err) KT_MUST_CHECK;
// The same for one pattern.
kt_status kt_checkpoint_open(kt_arena *arena, const char *folder, kt_str pattern,
    kt_checkpoint *out, kt_err *err) KT_MUST_CHECK;
void kt_checkpoint_close(kt_checkpoint *checkpoint);
const kt_stored *kt_checkpoint_find(const kt_checkpoint *checkpoint, kt_str name); // NULL if absent
// Reads `size` bytes of the tensor's data from `offset` within it.
kt_status kt_checkpoint_read(const kt_checkpoint *checkpoint, const kt_stored *stored,
    int64_t offset, void *out, int64_t size, kt_err *err) KT_MUST_CHECK;

#endif
