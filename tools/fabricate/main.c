// build/fabricate: a checkpoint of MiniCPM-V 2.6 with the names, types, shapes, sizes and files of
// the download and numbers drawn from a seed. For planning, compiling and measuring where the model
// itself is not at hand. Not part of the program that is shipped.
#include "runtime/base/file.h"
#include "tools/command.h"
#include "tools/fabricate/gguf.h"
#include "tools/fabricate/shard.h"
#include "tools/fabricate/words.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct settings {
    bool int4, gguf, sparse, measure;
    kt_gguf_mix mix; // of gguf
    const char *out, *config, *tokenizer;
    int64_t seed, threads, shard_bytes;
} settings;

static settings set = {.int4 = true, .shard_bytes = 5000000000};

static const char *take_model(kt_args *args, const char *value) {
    (void)args;
    kt_str name = kt_str_from(value);
    set.int4 = kt_str_is(name, "int4");
    set.gguf = kt_str_starts(name, KT_STR("gguf-"));
    set.mix = kt_str_is(name, "gguf-q4_0") ? KT_GGUF_Q4_0 : KT_GGUF_Q4_K_M;
    bool known = kt_str_is(name, "bf16") || kt_str_is(name, "gguf-q4_0") ||
                 kt_str_is(name, "gguf-q4_k_m") || set.int4;
    return known ? NULL : "one of int4, bf16, gguf-q4_k_m, gguf-q4_0";
}

static const char *take_out(kt_args *args, const char *value) {
    (void)args;
    set.out = value;
    return NULL;
}

static const char *take_config(kt_args *args, const char *value) {
    (void)args;
    set.config = value;
    return NULL;
}

static const char *take_tokenizer(kt_args *args, const char *value) {
    (void)args;
    set.tokenizer = value;
    return NULL;
}

static const char *take_seed(kt_args *args, const char *value) {
    (void)args;
    return kt_str_to_i64(kt_str_from(value), &set.seed) ? NULL : "an integer";
}

static const char *take_threads(kt_args *args, const char *value) {
    (void)args;
    bool ok =
        kt_str_to_i64(kt_str_from(value), &set.threads) && set.threads > 0 && set.threads < 256;
    return ok ? NULL : "an integer from 1 to 255";
}

static const char *take_shard(kt_args *args, const char *value) {
    (void)args;
    bool ok = kt_str_to_bytes(kt_str_from(value), &set.shard_bytes) && set.shard_bytes > 0;
    return ok ? NULL : "a size such as 5000000000 or 64M";
}

static const char *take_sparse(kt_args *args, const char *value) {
    (void)args, (void)value;
    set.sparse = true;
    return NULL;
}

static const char *take_measure(kt_args *args, const char *value) {
    (void)args, (void)value;
    set.measure = true;
    return NULL;
}

static const kt_flag flags[] = {
    {"--model", "NAME", "which download: int4 (without this), bf16, gguf-q4_k_m, gguf-q4_0",
        take_model},
    {"--out", "DIR", "the folder to make", take_out},
    {"--seed", "N", "what the numbers are drawn from (0)", take_seed},
    {"--sparse", NULL, "headers, settings and small tensors only; the rest are holes", take_sparse},
    {"--config", "FILE", "a config.json whose sizes replace the model's", take_config},
    {"--tokenizer", "DIR", "tokenizer files to use instead of an invented one", take_tokenizer},
    {"--shard", "BYTES", "limit of one file (5000000000)", take_shard},
    {"--threads", "N", "threads (as many as CPUs)", take_threads},
    {"--measure", NULL, "make all bytes, write none, say how fast", take_measure},
};

static kt_status put(kt_arena *arena, const char *name, kt_buf *text, kt_err *err) {
    kt_status status = KT_OK;
    if (!set.measure)
        status = kt_os_write_atomic(kt_path_join(arena, set.out, name), text->at, text->n, err);
    kt_buf_clear(text);
    return status;
}

static kt_status make_tokenizer(
    kt_arena *arena, const kt_geometry *geometry, kt_buf *text, kt_err *err) {
    if (set.tokenizer) return kt_words_compose(arena, set.tokenizer, text, err);
    kt_words_invent(geometry->vocab, text);
    return KT_OK;
}

static kt_status put_settings(
    kt_arena *arena, const kt_geometry *geometry, kt_buf *text, kt_err *err) {
    kt_geometry_print(geometry, set.int4, text);
    KT_TRY(put(arena, "config.json", text, err));
    kt_words_generation(geometry, text);
    KT_TRY(put(arena, "generation_config.json", text, err));
    kt_words_preprocessor(geometry, text);
    KT_TRY(put(arena, "preprocessor_config.json", text, err));
    KT_TRY(make_tokenizer(arena, geometry, text, err));
    return put(arena, "tokenizer.json", text, err);
}

static kt_status put_shards(kt_shard *shards, int n, kt_err *err) {
    kt_writing how = {.folder = set.out, .sparse = set.sparse, .measure = set.measure};
    kt_status status = KT_OK;
    double begin = kt_os_now_ms();
    int64_t bytes = 0, n_tensors = 0;
    how.pool = kt_pool_open((int)set.threads);
    for (int i = 0; i < n && status == KT_OK; i++) {
        status = kt_shard_write(&shards[i], &how, err);
        int64_t size = (int64_t)shards[i].header.n + shards[i].data_bytes;
        bytes += size;
        n_tensors += shards[i].n;
        printf("%s: %" PRId64 " bytes, %" PRId64 " tensors\n", shards[i].name, size, shards[i].n);
    }
    double seconds = (kt_os_now_ms() - begin) / 1e3;
    if (status == KT_OK)
        printf("%s %" PRId64 " tensors, %" PRId64 " bytes in %.2f s with %d threads: %.2f GB/s\n",
            set.measure ? "made" : "wrote", n_tensors, bytes, seconds, kt_pool_threads(how.pool),
            (double)bytes / seconds / 1e9);
    kt_pool_close(how.pool);
    for (int i = 0; i < n; i++) kt_buf_deinit(&shards[i].header);
    return status;
}

static kt_status put_gguf(kt_arena *arena, const kt_gguf_source *source, kt_err *err) {
    kt_shard files[2];
    KT_TRY(kt_gguf_files(arena, source, files, err));
    return put_shards(files, 2, err);
}

static kt_status fabricate(kt_arena *arena, kt_buf *text, kt_err *err) {
    kt_geometry geometry;
    KT_TRY(kt_geometry_read(arena, set.config, &geometry, err));
    kt_tensors tensors = kt_model_tensors(arena, &geometry, set.int4, (uint64_t)set.seed);
    if (!set.measure && !kt_os_mkdirs(set.out))
        return KT_FAIL(err, KT_EFILE, "cannot make the folder '%s'", set.out);
    if (set.gguf) {
        kt_gguf_source source = {.geometry = &geometry, .tensors = tensors, .mix = set.mix};
        source.seed = (uint64_t)set.seed;
        KT_TRY(make_tokenizer(arena, &geometry, text, err));
        source.tokenizer = (kt_str){text->at, text->n};
        return put_gguf(arena, &source, err);
    }
    KT_TRY(put_settings(arena, &geometry, text, err));
    kt_shard *shards;
    int n = kt_shard_split(arena, &tensors, set.shard_bytes, &shards, text);
    KT_TRY(put_shards(shards, n, err));
    return text->n > 0 ? put(arena, "model.safetensors.index.json", text, err) : KT_OK;
}

int main(int argc, char **argv) {
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, flags, sizeof flags / sizeof *flags,
            "fabricate --model NAME --out DIR [options]"))
        return args.code;
    if (args.n_positional > 0 || (!set.out && !set.measure))
        return kt_usage("fabricate takes --out DIR and no other names");
    kt_arena arena = {0};
    kt_buf text = {0};
    kt_err err;
    int code = kt_report(fabricate(&arena, &text, &err), NULL, &err);
    kt_buf_deinit(&text);
    kt_arena_deinit(&arena);
    return code;
}
