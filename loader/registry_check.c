// Formats against the ops that prepare them, and layouts against what those ops make.
#include "loader/registry_parts.h"

#include <stdlib.h>

static kt_str *part_names(kt_diag *diag, const kt_format *format) {
    kt_str *names = KT_NEW_ARRAY(diag->arena, kt_str, format->n_parts);
    for (int i = 0; i < format->n_parts; i++) names[i] = format->parts[i].name;
    return names;
}

// Whether the op takes every element type that the part may be stored in.
static bool takes_types(
    const kt_format *format, const kt_type *part, const kt_op *op, const kt_type *input) {
    kt_dtype one = part->dtype;
    const kt_dtype *stored = &one;
    int n_stored = 1;
    for (int i = 0; part->base == KT_BASE_VAR && i < format->n_typevars; i++) {
        if (!kt_str_eq(format->typevars[i], part->var)) continue;
        stored = format->typevar_choices[i];
        n_stored = format->n_typevar_choices[i];
    }
    kt_dtype fixed = input->dtype;
    const kt_dtype *taken = &fixed;
    int n_taken = 1, var = input->base == KT_BASE_VAR ? kt_op_typevar_find(op, input->var) : -1;
    if (var >= 0) {
        taken = op->typevars[var].choices;
        n_taken = op->typevars[var].n_choices;
    }
    for (int i = 0; i < n_stored; i++) {
        bool found = false;
        for (int k = 0; k < n_taken; k++) found = found || taken[k] == stored[i];
        if (!found) return false;
    }
    return true;
}

static bool same_rank(const kt_type *part, const kt_type *input) {
    if (part->rank != input->rank) return false;
    for (int i = 0; i < part->rank; i++) {
        kt_str a, b;
        int64_t size, other;
        bool numbers = kt_expr_is_axis(part->axis[i], &a, &size) &&
                       kt_expr_is_axis(input->axis[i], &b, &other);
        if (numbers && a.n == 0 && b.n == 0 && size != other) return false;
    }
    return true;
}

static bool check_to(const kt_op_port *port, kt_diag *diag) {
    const kt_type *type = &port->type;
    kt_str name;
    int64_t add;
    bool rows = type->base == KT_BASE_DTYPE && type->dtype == KT_DTYPE_I32 && type->rank == 1 &&
                kt_expr_is_axis(type->axis[0], &name, &add) && kt_str_is(name, "n") && add == 0;
    if (rows) return true;
    kt_diag_error(diag, KT_RULE_TYPE, type->at,
        "'to' is i32[n], the row of the layout for each row of the weight, got '%.*s'",
        KT_STR_ARG(type->text));
    return false;
}

static bool check_input(
    const kt_format *format, const kt_op *op, const kt_op_port *port, kt_diag *diag) {
    const kt_format_part *part = kt_format_part_find(format, port->name);
    if (part == NULL && kt_str_is(port->name, "to")) return check_to(port, diag);
    if (part == NULL) {
        kt_diag_error(diag, KT_RULE_NAME, port->at, "'%.*s' is no part of format '%.*s'",
            KT_STR_ARG(port->name), KT_STR_ARG(format->name));
        kt_diag_near(diag, port->name, part_names(diag, format), (size_t)format->n_parts, true);
        return false;
    }
    if (same_rank(&part->type, &port->type) && takes_types(format, &part->type, op, &port->type))
        return true;
    kt_diag_error(diag, KT_RULE_TYPE, port->type.at,
        "part '%.*s' of format '%.*s' is %.*s, this op takes %.*s", KT_STR_ARG(part->name),
        KT_STR_ARG(format->name), KT_STR_ARG(part->type.text), KT_STR_ARG(port->type.text));
    kt_diag_note_at(diag, part->at, "the part is declared");
    return false;
}

static bool check_params(const kt_format *format, const kt_op *op, kt_diag *diag) {
    bool good = true;
    kt_str *known = KT_NEW_ARRAY(diag->arena, kt_str, format->n_values);
    for (int i = 0; i < format->n_values; i++) known[i] = format->values[i].name;
    for (int i = 0; i < op->n_params; i++) {
        bool found = false;
        for (int k = 0; k < format->n_values; k++)
            found = found || kt_str_eq(known[k], op->params[i].name);
        if (found) continue;
        good = kt_diag_error(diag, KT_RULE_NAME, op->params[i].at,
            "'%.*s' is no value of format '%.*s'", KT_STR_ARG(op->params[i].name),
            KT_STR_ARG(format->name));
        kt_diag_near(diag, op->params[i].name, known, (size_t)format->n_values, true);
    }
    return good;
}

static bool check_prepare(
    const kt_registry *registry, const kt_op *op, kt_ref name, kt_diag *diag) {
    const kt_format *format = kt_registry_format(registry, name.text);
    if (format == NULL) {
        kt_str *known = KT_NEW_ARRAY(diag->arena, kt_str, registry->formats.n);
        for (size_t i = 0; i < registry->formats.n; i++) known[i] = registry->formats.at[i]->name;
        kt_diag_error(diag, KT_RULE_NAME, name.at, "op '%.*s' prepares the unknown format '%.*s'",
            KT_STR_ARG(op->name), KT_STR_ARG(name.text));
        kt_diag_near(diag, name.text, known, registry->formats.n, true);
        return false;
    }
    bool good = true;
    for (int i = 0; i < op->n_inputs; i++)
        good = check_input(format, op, &op->ports[i], diag) && good;
    for (int i = 0; i < format->n_parts; i++) {
        if (kt_op_port_find(op, format->parts[i].name) >= 0) continue;
        good = kt_diag_error(diag, KT_RULE_NAME, op->at,
            "op '%.*s' does not take the part '%.*s' of format '%.*s'", KT_STR_ARG(op->name),
            KT_STR_ARG(format->parts[i].name), KT_STR_ARG(format->name));
        kt_diag_note_at(diag, format->parts[i].at, "the part is declared");
    }
    return check_params(format, op, diag) && good;
}

// No other op, and no other name of this one's list (`which`), has the format for this layout.
static bool check_twins(const kt_registry *registry, const kt_op *op, int which, kt_diag *diag) {
    kt_ref name = op->prepare_formats[which];
    const kt_op *first = kt_registry_prepare(registry, name.text, op->prepare_layout);
    for (int i = 0; i < which; i++)
        if (kt_str_eq(op->prepare_formats[i].text, name.text))
            return kt_diag_error(diag, KT_RULE_NAME, name.at, "format '%.*s' is in the list twice",
                KT_STR_ARG(name.text));
    if (first == op) return true;
    kt_diag_error(diag, KT_RULE_NAME, op->at, "format '%.*s' is prepared to layout '%.*s' twice",
        KT_STR_ARG(name.text), KT_STR_ARG(op->prepare_layout));
    kt_diag_note_at(diag, first->at, "op '%.*s' does it first", KT_STR_ARG(first->name));
    return false;
}

bool kt_registry_check(const kt_registry *registry, kt_diag *diag) {
    bool good = true;
    const kt_format *plain = NULL;
    for (size_t i = 0; i < registry->prepares.n; i++) {
        const kt_op *op = registry->prepares.at[i];
        for (int f = 0; f < op->n_prepare_formats; f++) {
            good = check_prepare(registry, op, op->prepare_formats[f], diag) && good;
            good = check_twins(registry, op, f, diag) && good;
        }
    }
    for (size_t i = 0; i < registry->formats.n; i++) {
        const kt_format *format = registry->formats.at[i];
        if (kt_registry_prepare(registry, format->name, KT_STR("rows_f16")) == NULL) {
            good = kt_diag_error(diag, KT_RULE_NAME, format->at,
                "no op prepares format '%.*s' to rows_f16, so nothing can read it",
                KT_STR_ARG(format->name));
            kt_diag_note(diag, "write an op with prepare: { format: %.*s, layout: rows_f16 }",
                KT_STR_ARG(format->name));
        }
        if (format->when.n > 0) continue;
        if (plain != NULL) {
            good = kt_diag_error(diag, KT_RULE_KEY, format->at,
                "formats '%.*s' and '%.*s' both have no 'when'", KT_STR_ARG(plain->name),
                KT_STR_ARG(format->name));
            kt_diag_note_at(diag, plain->at,
                "a format without 'when' is that of plain numbers; the first one is");
        }
        plain = format;
    }
    return good;
}

bool kt_registry_check_layouts(const kt_registry *registry, const kt_op *op, kt_diag *diag) {
    bool good = true;
    kt_str *known = KT_NEW_ARRAY(diag->arena, kt_str, registry->prepares.n);
    for (size_t i = 0; i < registry->prepares.n; i++)
        known[i] = registry->prepares.at[i]->prepare_layout;
    for (int v = 0; v < op->n_variants; v++) {
        for (int l = 0; l < op->variants[v].n_layouts; l++) {
            const kt_op_layout *layout = &op->variants[v].layouts[l];
            for (int i = 0; i < layout->n_as; i++) {
                if (kt_registry_layout_known(registry, layout->as[i])) continue;
                good = kt_diag_error(diag, KT_RULE_NAME, layout->as_at[i],
                    "no prepare op makes the layout '%.*s'", KT_STR_ARG(layout->as[i]));
                kt_diag_near(diag, layout->as[i], known, registry->prepares.n, true);
            }
        }
    }
    return good;
}
