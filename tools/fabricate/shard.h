// Tensors to safetensors files: which file, where in it, header, index, and the writing itself.
//
// As the hub's files were made: tensors fill shards in the order of the state dict up to a limit
// (transformers: 5 GB); within a file the wider types come first, then names ascend (safetensors).
#ifndef KT_FABRICATE_SHARD_H
#define KT_FABRICATE_SHARD_H

#include "runtime/base/pool.h"
#include "tools/fabricate/model.h"

enum { KT_SHARD_SMALL = 64 << 10 }; // bytes; such tensors are written in sparse files too

// A file to write: bytes at the start, then tensors one behind the other.
typedef struct kt_shard {
    char name[64];
    kt_buf header;      // all before the data
    int64_t data_bytes; // behind the header
    kt_tensor *tensors; // in file order; bytes between them are zero
    int64_t n;
} kt_shard;

typedef struct kt_writing {
    kt_pool *pool;
    const char *folder; // of files; NULL where `measure`
    bool sparse;        // data of tensors above KT_SHARD_SMALL stay holes
    bool measure;       // make all bytes and write none
} kt_writing;

// Splits tensors (reordered) into shards of at most `limit` bytes. *shards is in the arena; each
// header is its owner's to release. index gets model.safetensors.index.json, or stays empty where
// one file is enough.
int kt_shard_split(
    kt_arena *arena, kt_tensors *tensors, int64_t limit, kt_shard **shards, kt_buf *index);
// Writes one file. Errors: EFILE.
kt_status kt_shard_write(const kt_shard *shard, const kt_writing *how, kt_err *err) KT_MUST_CHECK;

#endif
