// A strict subset of YAML as a tree of located nodes. The only user of libyaml (its event API).
//
// Scalars are text: the reader of a key gives them a type. Refused with a message: duplicate keys,
// anchors, aliases, merge keys, tags, several documents, empty values (a comma inside { } needs
// quotes), depth over 32, more than 100,000 nodes, files over 4 MiB, text that is not UTF-8.
#ifndef KT_LOADER_YAML_H
#define KT_LOADER_YAML_H

#include "loader/diag.h"

typedef enum kt_node_kind { KT_NODE_SCALAR, KT_NODE_LIST, KT_NODE_MAP } kt_node_kind;

typedef struct kt_node kt_node;

typedef struct kt_pair {
    kt_str key;
    kt_place at; // of the key
    const kt_node *value;
} kt_pair;

struct kt_node {
    kt_node_kind kind;
    kt_place at; // of the value; an error inside the text can be located if `exact`
    kt_str text; // scalar
    bool quoted; // scalar written with quotes or as a block
    bool flow;   // stands inside { } or [ ]
    bool exact;  // scalar on one line without escapes: byte i of text stands at column + i
    const kt_node *const *items; // list
    const kt_pair *pairs;        // map, in file order
    size_t n;                    // of items or pairs
};

// Reads `path` (shown as `shown` in messages). NULL after reporting to diag; also NULL (with an
// error of rule FILE) if it cannot be read.
const kt_node *kt_yaml_open(kt_arena *arena, const char *path, const char *shown, kt_diag *diag);
// The same from text in memory, which must live as long as the arena.
const kt_node *kt_yaml_parse(kt_arena *arena, kt_str text, const char *shown, kt_diag *diag);

const kt_pair *kt_node_find(const kt_node *map, const char *key); // NULL if absent or no map
const kt_pair *kt_node_find_str(const kt_node *map, kt_str key);
const char *kt_node_kind_name(const kt_node *node); // "a text", "a list", "a map"

#endif
