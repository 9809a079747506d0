// GGUF files for tests: keys and tensors are added one by one, then the whole is put together. What
// is damaged on purpose is changed in the bytes afterwards.
#ifndef KT_TESTS_GGUF_FILE_H
#define KT_TESTS_GGUF_FILE_H

#include "runtime/base/str.h"

enum { GGUF_F32 = 0, GGUF_F16 = 1, GGUF_Q4_1 = 3, GGUF_Q8_0 = 8, GGUF_Q2_K = 10 };

// Zeroed is ready, but for what gguf_init sets.
typedef struct gguf_file {
    uint32_t version;
    size_t alignment; // written as general.alignment when it is not 32
    int64_t n_keys, n_tensors;
    kt_buf keys, tensors, data;
} gguf_file;

void gguf_init(gguf_file *f); // version 3, alignment 32, nothing in it
void gguf_deinit(gguf_file *f);

void gguf_key_text(gguf_file *f, const char *key, kt_str text);
void gguf_key_u32(gguf_file *f, const char *key, uint32_t value);
void gguf_key_f32(gguf_file *f, const char *key, float value);
void gguf_key_bool(gguf_file *f, const char *key, bool value);
void gguf_key_texts(gguf_file *f, const char *key, const kt_str *texts, size_t n);
void gguf_key_i32s(gguf_file *f, const char *key, const int32_t *numbers, size_t n);
void gguf_key_f32s(gguf_file *f, const char *key, const float *numbers, size_t n);
// A key whose value is given as it lies in the file.
void gguf_key_raw(gguf_file *f, const char *key, uint32_t kind, const void *bytes, size_t n);
// A tensor [rows, columns] and its bytes; `shape` is turned into the file's order.
void gguf_tensor(gguf_file *f, const char *name, uint32_t type, const int64_t *shape, int rank,
    const void *bytes, size_t n);

// The whole file, on the heap.
kt_buf gguf_bytes(const gguf_file *f);
// Writes it and returns the path. What goes wrong fails the test.
const char *gguf_write(const gguf_file *f, const char *path);

// ---- twins of fabricated folders: tests/fabricate_gguf.c

typedef struct gguf_twin {
    const char *architecture; // "qwen2" or "llama": rows of q and k are stored for interleaved RoPE
    bool new_names;           // of the mmproj's MLP
    uint32_t eos;             // a token that ends an answer; 0: none
    bool q8;                  // matrices as Q8_0, where rows are multiples of 32
    const char *text, *mmproj; // names of the files; NULL: text.gguf, mmproj.gguf
} gguf_twin;

struct fake_model;
// Writes the folder `from`, which fabricate() made of `model` without NF4, once more as GGUF files
// into `to`. The tokenizer is that of from/tokenizer.json, if there is one.
void fabricate_gguf(
    const char *from, const char *to, const struct fake_model *model, const gguf_twin *twin);
// Adds the tokenizer of a tokenizer.json (byte-level BPE) with the name of its patterns.
void gguf_add_tokenizer(gguf_file *f, const char *path, const char *pre);

#endif
