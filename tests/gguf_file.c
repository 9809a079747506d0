#include "tests/gguf_file.h"

#include "tests/util.h"

#include <stdlib.h>
#include <string.h>

enum { KIND_U32 = 4, KIND_I32 = 5, KIND_F32 = 6, KIND_BOOL = 7, KIND_TEXT = 8, KIND_LIST = 9 };

void gguf_init(gguf_file *f) {
    *f = (gguf_file){.version = 3, .alignment = 32};
}

void gguf_deinit(gguf_file *f) {
    kt_buf_deinit(&f->keys);
    kt_buf_deinit(&f->tensors);
    kt_buf_deinit(&f->data);
}

static void put(kt_buf *to, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)(number >> (8 * i));
        kt_buf_add(to, &byte, 1);
    }
}

static void put_text(kt_buf *to, kt_str text) {
    put(to, text.n, 8);
    kt_buf_str(to, text);
}

void gguf_key_raw(gguf_file *f, const char *key, uint32_t kind, const void *bytes, size_t n) {
    put_text(&f->keys, kt_str_from(key));
    put(&f->keys, kind, 4);
    kt_buf_add(&f->keys, bytes, n);
    f->n_keys++;
}

static void key(gguf_file *f, const char *name, int kind) {
    gguf_key_raw(f, name, (uint32_t)kind, "", 0);
}

static void list(gguf_file *f, const char *name, int kind, size_t n) {
    key(f, name, KIND_LIST);
    put(&f->keys, (uint64_t)kind, 4);
    put(&f->keys, n, 8);
}

static void put_float(kt_buf *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put(to, bits, 4);
}

void gguf_key_text(gguf_file *f, const char *name, kt_str text) {
    key(f, name, KIND_TEXT);
    put_text(&f->keys, text);
}

void gguf_key_u32(gguf_file *f, const char *name, uint32_t value) {
    key(f, name, KIND_U32);
    put(&f->keys, value, 4);
}

void gguf_key_f32(gguf_file *f, const char *name, float value) {
    key(f, name, KIND_F32);
    put_float(&f->keys, value);
}

void gguf_key_bool(gguf_file *f, const char *name, bool value) {
    key(f, name, KIND_BOOL);
    put(&f->keys, value ? 1 : 0, 1);
}

void gguf_key_texts(gguf_file *f, const char *name, const kt_str *texts, size_t n) {
    list(f, name, KIND_TEXT, n);
    for (size_t i = 0; i < n; i++) put_text(&f->keys, texts[i]);
}

void gguf_key_i32s(gguf_file *f, const char *name, const int32_t *numbers, size_t n) {
    list(f, name, KIND_I32, n);
    for (size_t i = 0; i < n; i++) put(&f->keys, (uint32_t)numbers[i], 4);
}

void gguf_key_f32s(gguf_file *f, const char *name, const float *numbers, size_t n) {
    list(f, name, KIND_F32, n);
    for (size_t i = 0; i < n; i++) put_float(&f->keys, numbers[i]);
}

void gguf_tensor(gguf_file *f, const char *name, uint32_t type, const int64_t *shape, int rank,
    const void *bytes, size_t n) {
    static const char zeros[1 << 16];
    put_text(&f->tensors, kt_str_from(name));
    put(&f->tensors, (uint64_t)rank, 4);
    for (int i = rank - 1; i >= 0; i--) put(&f->tensors, (uint64_t)shape[i], 8);
    put(&f->tensors, type, 4);
    size_t rest = f->data.n % f->alignment;
    if (rest > 0) kt_buf_add(&f->data, zeros, f->alignment - rest);
    put(&f->tensors, f->data.n, 8);
    kt_buf_add(&f->data, bytes, n);
    f->n_tensors++;
}

kt_buf gguf_bytes(const gguf_file *f) {
    static const char zeros[1 << 16];
    gguf_file aligned = {0};
    if (f->alignment != 32) gguf_key_u32(&aligned, "general.alignment", (uint32_t)f->alignment);
    kt_buf out = {0};
    kt_buf_add(&out, "GGUF", 4);
    put(&out, f->version, 4);
    put(&out, (uint64_t)f->n_tensors, 8);
    put(&out, (uint64_t)(f->n_keys + aligned.n_keys), 8);
    if (aligned.keys.n > 0) kt_buf_add(&out, aligned.keys.at, aligned.keys.n);
    if (f->keys.n > 0) kt_buf_add(&out, f->keys.at, f->keys.n);
    if (f->tensors.n > 0) kt_buf_add(&out, f->tensors.at, f->tensors.n);
    size_t rest = out.n % f->alignment;
    if (rest > 0 && f->data.n > 0) kt_buf_add(&out, zeros, f->alignment - rest);
    if (f->data.n > 0) kt_buf_add(&out, f->data.at, f->data.n);
    gguf_deinit(&aligned);
    return out;
}

const char *gguf_write(const gguf_file *f, const char *path) {
    kt_buf bytes = gguf_bytes(f);
    test_write(path, bytes.at, bytes.n);
    kt_buf_deinit(&bytes);
    return path;
}
