// Model folders for tests: config.json and model.safetensors of a given geometry, all numbers zero
// or, with a seed, lively ones.
#ifndef KT_TESTS_FABRICATE_H
#define KT_TESTS_FABRICATE_H

#include <stdbool.h>

typedef struct fake_model {
    int d, layers, f, heads, kv_heads, hd, vocab; // the text model
    bool bias, tied;
    int dv, fv, vis_heads, vis_layers, places, side, patch, queries; // dv 0: no vision
    int max_slices;
    bool nf4;              // linear layers as bitsandbytes NF4
    const char *prefix;    // of the text model's tensors: "llm." or ""
    const char *drop;      // a tensor that is left out, NULL
    const char *extra;     // a tensor that nobody wants, NULL
    unsigned seed;         // of the numbers; 0: all are zero. Not with NF4
    bool wide;             // numbers in f32 instead of f16
    bool grid;             // matrices that blocks of 32 with a scale and 8 bits hold exactly
    const char *tokenizer; // a tokenizer.json that is copied, NULL
} fake_model;

extern const fake_model fake_text;   // d 64, 2 layers, no biases, tied
extern const fake_model fake_vision; // d 128, one view, NF4

// A geometry in which hardly anything is equal by chance.
fake_model fake_random(unsigned seed);
// Makes the folder (parents too). Ends the program with a message if it cannot.
void fabricate(const char *folder, const fake_model *model);

#endif
