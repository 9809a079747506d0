#include "loader/tokenizer_parts.h"

#include <stdlib.h>

static int by_text(const void *a, const void *b) {
    return kt_str_cmp(((const kt_added *)a)->text, ((const kt_added *)b)->text);
}

void kt_added_sort(kt_added_list *list) {
    if (list->n > 1) qsort(list->at, list->n, sizeof *list->at, by_text);
}

// Where a zone ends up to which special tokens may reach from `at`; `at` itself where they may not
// begin.
typedef struct zone_walk {
    kt_zoned in;
    size_t zone; // the zone that holds byte `from`
    size_t from, to;
    size_t reach; // end of the last run of zones that allow special tokens; up to date where it is
                  // ahead
} zone_walk;

static size_t reach_at(zone_walk *walk, size_t at) {
    while (walk->zone < walk->in.n_zones && at >= walk->to) {
        walk->zone++;
        if (walk->zone == walk->in.n_zones) break;
        walk->from = walk->to;
        walk->to += walk->in.zones[walk->zone].bytes;
    }
    if (walk->zone == walk->in.n_zones || !walk->in.zones[walk->zone].special) return at;
    if (walk->reach > at) return walk->reach;
    walk->reach = walk->to;
    for (size_t z = walk->zone + 1; z < walk->in.n_zones && walk->in.zones[z].special; z++)
        walk->reach += walk->in.zones[z].bytes;
    return walk->reach;
}

// The tokens [from, to) whose byte `depth` is `c`, among those that agree before it. Shorter ones
// sort first.
static void narrow(
    const kt_added_list *list, size_t depth, unsigned char c, size_t *from, size_t *to) {
    size_t low = *from, high = *to;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        kt_str text = list->at[middle].text;
        bool before = text.n <= depth || (unsigned char)text.at[depth] < c;
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    *from = low;
    high = *to;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)list->at[middle].text.at[depth] <= c)
            low = middle + 1;
        else
            high = middle;
    }
    *to = low;
}

// The longest token at `at`; special ones must end by `reach`. NULL if there is none.
static const kt_added *longest_at(const kt_added_list *list, kt_str text, size_t at, size_t reach) {
    const kt_added *best = NULL;
    size_t from = 0, to = list->n;
    for (size_t depth = 0; at + depth < text.n; depth++) {
        narrow(list, depth, (unsigned char)text.at[at + depth], &from, &to);
        if (from == to) break;
        const kt_added *first = &list->at[from];
        if (first->text.n != depth + 1) continue;
        if (!first->special || at + depth + 1 <= reach) best = first;
    }
    return best;
}

void kt_added_find(kt_arena *arena, const kt_added_list *list, kt_zoned in, kt_added_matches *out) {
    if (list->n == 0) return;
    bool first[256] = {false};
    for (size_t i = 0; i < list->n; i++) first[(unsigned char)list->at[i].text.at[0]] = true;
    zone_walk walk = {.in = in, .to = in.n_zones > 0 ? in.zones[0].bytes : 0};
    size_t done = 0;
    for (size_t at = 0; at < in.text.n;) {
        const kt_added *token = NULL;
        if (first[(unsigned char)in.text.at[at]])
            token = longest_at(list, in.text, at, reach_at(&walk, at));
        if (token == NULL) {
            at++;
            continue;
        }
        kt_added_match match = {at, at + token->text.n, token->id};
        if (token->lstrip) match.from -= kt_space_at_end(kt_str_slice(in.text, done, at));
        if (token->rstrip)
            match.to += kt_space_at_start(kt_str_slice(in.text, match.to, in.text.n));
        KT_PUSH(arena, out, match);
        at = done = match.to;
    }
}
