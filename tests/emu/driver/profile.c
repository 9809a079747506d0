// The device that is played: a profile by name, and changes to it.
#include "tests/emu/driver/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t gib = (uint64_t)1 << 30, mib = (uint64_t)1 << 20;

// Limits of a block's shared memory: CUDA programming guide, technical specifications by compute
// capability. What is free is what a desktop, and the driver's own part of a server card, leave.
static void get_named(const char *name, size_t n, drv_profile *out) {
    const drv_profile rows[] = {
        {.name = "rtx4060",
            .title = "NVIDIA GeForce RTX 4060 (stand-in)",
            .cc_major = 8,
            .cc_minor = 9,
            .sms = 24,
            .memory = 8188 * mib,
            .free = 7 * gib,
            .shared_optin = 99 * 1024,
            .sm_share = 2,
            .sm_least = 4},
        {.name = "h100",
            .title = "NVIDIA H100 80GB HBM3 (stand-in)",
            .cc_major = 9,
            .cc_minor = 0,
            .sms = 132,
            .memory = 81559 * mib,
            .free = 80900 * mib,
            .shared_optin = 227 * 1024,
            .sm_share = 8,
            .sm_least = 8},
        {.name = "rtx5060",
            .title = "NVIDIA GeForce RTX 5060 (stand-in)",
            .cc_major = 12,
            .cc_minor = 0,
            .sms = 30,
            .memory = 8151 * mib,
            .free = 7 * gib,
            .shared_optin = 99 * 1024,
            .sm_share = 8,
            .sm_least = 8},
        {.name = "a100",
            .title = "NVIDIA A100-SXM4-40GB (stand-in)",
            .cc_major = 8,
            .cc_minor = 0,
            .sms = 108,
            .memory = 40960 * mib,
            .free = 40 * gib - 500 * mib,
            .shared_optin = 163 * 1024,
            .sm_share = 2,
            .sm_least = 4},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strlen(rows[i].name) == n && memcmp(rows[i].name, name, n) == 0) *out = rows[i];
}

static bool set_one(drv_profile *p, const char *name, const char *value) {
    char *end = NULL;
    uint64_t number = strtoull(value, &end, 0);
    const struct {
        const char *name;
        int *small;
        uint64_t *large;
    } rows[] = {
        {"driver", &p->driver, NULL},
        {"count", &p->count, NULL},
        {"timeout", &p->timeout, NULL},
        {"sms", &p->sms, NULL},
        {"memory", NULL, &p->memory},
        {"free", NULL, &p->free},
        {"promised", NULL, &p->promised},
    };
    if (strcmp(name, "missing") == 0) {
        p->missing = strdup(value);
        return p->missing != NULL;
    }
    if (*value == 0 || *end != 0) return false;
    if (strcmp(name, "poison") == 0) p->poison = (unsigned)number & 0xff;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(name, rows[i].name) != 0) continue;
        if (rows[i].small != NULL) *rows[i].small = (int)number;
        if (rows[i].large != NULL) *rows[i].large = number;
        return true;
    }
    return strcmp(name, "poison") == 0;
}

static bool parse(const char *text, drv_profile *out) {
    size_t n = strcspn(text, ",");
    bool named = memchr(text, '=', n) == NULL;
    *out = (drv_profile){0};
    get_named(named && n > 0 ? text : "rtx4060", named && n > 0 ? n : 7, out);
    if (out->name == NULL) return false;
    out->driver = 13000;
    out->count = 1;
    out->poison = EMU_POISON;
    if (named) text += n + (text[n] == ',');
    while (*text != 0) {
        char item[256], *equals;
        n = strcspn(text, ",");
        if (n >= sizeof item) return false;
        memcpy(item, text, n);
        item[n] = 0;
        equals = strchr(item, '=');
        if (equals == NULL) return false;
        *equals = 0;
        if (!set_one(out, item, equals + 1)) return false;
        text += n + (text[n] == ',');
    }
    if (out->sms < 1) return false;
    if (out->free > out->memory) out->free = out->memory;
    return true;
}

void drv_profile_read(const char *text, drv_profile *out) {
    static drv_profile kept; // read once: driver functions are looked up by the dozen
    static bool have;
    if (!have && !parse(text == NULL ? "" : text, &kept)) {
        (void)fprintf(
            stderr, "emu: KOTARO_EMU_DEVICE=%s is not understood (tests/emu/driver.h)\n", text);
        _exit(EMU_STRICT_EXIT);
    }
    have = true;
    *out = kept;
}

bool drv_profile_lacks(const drv_profile *profile, const char *name) {
    size_t n = strlen(name);
    for (const char *at = profile->missing; at != NULL && *at != 0;) {
        size_t m = strcspn(at, "+");
        if (m == n && memcmp(at, name, n) == 0) return true;
        at += m + (at[m] == '+');
    }
    return false;
}
