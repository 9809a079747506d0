// `kotaro explain`: the resolved pipeline, each line with the place it came from.
#include "loader/pipeline_internal.h"

#include <inttypes.h>
#include <stdarg.h>

enum { PLACE_COLUMN = 88 };

typedef struct printer {
    kt_buf *out;
    kt_buf line;
} printer;

static void add(printer *p, const char *fmt, ...) KT_PRINTF(2, 3);
static void add(printer *p, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    kt_buf_printfv(&p->line, fmt, args);
    va_end(args);
}

// Ends the line; `at` goes behind it.
static void end(printer *p, kt_place at) {
    kt_buf_add(p->out, p->line.at, p->line.n);
    size_t width = kt_utf8_count((kt_str){p->line.at, p->line.n});
    kt_buf_printf(p->out, "%*s  # ", width < PLACE_COLUMN ? (int)(PLACE_COLUMN - width) : 0, "");
    if (at.source)
        kt_buf_printf(p->out, "%s:%d", at.source->path, at.line);
    else
        kt_buf_printf(p->out, "command line");
    kt_buf_printf(p->out, "\n");
    kt_buf_clear(&p->line);
}

static void plain(printer *p, const char *text) {
    kt_buf_printf(p->out, "%s\n", text);
}

static void scalar(printer *p, const kt_node *node) {
    bool quote = node->text.n == 0 || node->quoted;
    add(p, quote ? "\"" : "");
    for (size_t i = 0; i < node->text.n; i++) {
        char c = node->text.at[i];
        if (c == '\n')
            add(p, "\\n");
        else if (quote && (c == '"' || c == '\\'))
            add(p, "\\%c", c);
        else
            kt_buf_add(&p->line, &c, 1);
    }
    add(p, quote ? "\"" : "");
}

static void value(printer *p, const kt_node *node, int indent);

static void list_lines(printer *p, const kt_node *node, int indent) {
    for (size_t i = 0; i < node->n; i++) {
        add(p, "%*s-", indent, "");
        value(p, node->items[i], indent + 2);
    }
}

// The value of a key whose "key:" stands in the line already; ends the line.
static void value(printer *p, const kt_node *node, int indent) {
    if (node->kind == KT_NODE_SCALAR) {
        add(p, " ");
        scalar(p, node);
        end(p, node->at);
        return;
    }
    end(p, node->at);
    if (node->kind == KT_NODE_LIST) {
        list_lines(p, node, indent + 2);
        return;
    }
    for (size_t i = 0; i < node->n; i++) {
        add(p, "%*s%.*s:", indent + 2, "", KT_STR_ARG(node->pairs[i].key));
        value(p, node->pairs[i].value, indent + 2);
    }
}

static void links(printer *p, const char *key, const kt_link *list, int n) {
    if (n == 0) return;
    add(p, ", %s: {", key);
    for (int i = 0; i < n; i++)
        add(p, "%s %.*s: %.*s", i ? "," : "", KT_STR_ARG(list[i].port.text),
            KT_STR_ARG(list[i].name.text));
    add(p, " }");
}

static void givens(printer *p, const char *key, const kt_given *list, int n) {
    if (n == 0) return;
    add(p, ", %s: {", key);
    for (int i = 0; i < n; i++) {
        add(p, "%s %.*s: ", i ? "," : "", KT_STR_ARG(list[i].name.text));
        if (list[i].value->kind == KT_NODE_SCALAR) scalar(p, list[i].value);
    }
    add(p, " }");
}

static void step(printer *p, const kt_step *s, int indent) {
    if (s->repeat.text.n) {
        add(p, "%*s- { repeat: %.*s", indent, "", KT_STR_ARG(s->repeat.text));
        links(p, "carry", s->carry, s->n_carry);
        links(p, "yield", s->yield_, s->n_yield);
        add(p, ", steps: }");
        end(p, s->at);
        for (int i = 0; i < s->n_steps; i++) step(p, &s->steps[i], indent + 4);
        return;
    }
    bool host = s->host.text.n > 0;
    kt_str name = host ? s->host.text : s->op.text;
    add(p, "%*s- { %s: %.*s", indent, "", host ? "host" : "op", KT_STR_ARG(name));
    if (s->id.text.n) add(p, ", id: %.*s", KT_STR_ARG(s->id.text));
    links(p, "in", s->in, s->n_in);
    links(p, "inout", s->inout, s->n_inout);
    links(p, "out", s->out, s->n_out);
    givens(p, "params", s->params, s->n_params);
    if (s->param_group.text.n) add(p, ", params: %.*s", KT_STR_ARG(s->param_group.text));
    givens(p, "dims", s->dims, s->n_dims);
    givens(p, "types", s->types, s->n_types);
    add(p, " }");
    end(p, s->at);
}

static void stage(printer *p, const kt_pipe_stage *s) {
    add(p, "  %.*s:", KT_STR_ARG(s->name.text));
    end(p, s->name.at);
    if (s->graph) plain(p, "    graph: true");
    if (s->loop) {
        kt_str most = kt_expr_text(s->loop_most);
        add(p, "    loop: { most: %.*s, until: %.*s, read: %.*s }", KT_STR_ARG(most),
            KT_STR_ARG(s->loop_until.text), KT_STR_ARG(s->loop_read.text));
        end(p, s->loop_until.at);
    }
    for (int i = 0; i < s->n_each; i++) {
        add(p, "    each: { %.*s: %.*s }", KT_STR_ARG(s->each[i].port.text),
            KT_STR_ARG(s->each[i].name.text));
        end(p, s->each[i].port.at);
    }
    plain(p, "    steps:");
    for (int i = 0; i < s->n_steps; i++) step(p, &s->steps[i], 6);
}

static void sizes(printer *p, const kt_pipeline *pipeline) {
    if (pipeline->n_dims) plain(p, "dims:");
    for (int i = 0; i < pipeline->n_dims; i++) {
        const kt_pipe_dim *dim = &pipeline->dims[i];
        kt_str text = kt_expr_text(dim->fixed ? dim->fixed : dim->max);
        add(p, "  %.*s: ", KT_STR_ARG(dim->name.text));
        add(p, dim->fixed ? "%.*s" : "{ max: %.*s", KT_STR_ARG(text));
        for (int k = 0; k < dim->n_buckets; k++)
            add(p, "%s%" PRId64, k ? ", " : ", buckets: [", dim->buckets[k]);
        if (dim->n_buckets) add(p, "]");
        if (!dim->fixed) add(p, " }");
        end(p, dim->name.at);
    }
    if (pipeline->n_state) plain(p, "state:");
    for (int i = 0; i < pipeline->n_state; i++) {
        const kt_pipe_state *state = &pipeline->state[i];
        add(p, "  %.*s: %.*s", KT_STR_ARG(state->name.text), KT_STR_ARG(state->type.text));
        end(p, state->name.at);
    }
}

void kt_pipeline_explain(const kt_pipeline *pipeline, kt_buf *out) {
    printer p = {.out = out};
    kt_buf_printf(out, "# %s: %.*s\n", pipeline->path, KT_STR_ARG(pipeline->doc));
    kt_buf_printf(out, "name: %.*s\n", KT_STR_ARG(pipeline->name));
    if (pipeline->n_model_files) plain(&p, "include:");
    for (int i = 0; i < pipeline->n_model_files; i++)
        kt_buf_printf(out, "  - %s\n", pipeline->model_files[i]);
    for (int i = 0; i < pipeline->n_params; i++) {
        const kt_pipe_param *param = &pipeline->params[i];
        const kt_node *node = kt_pipe_param_node(param);
        add(&p, "%.*s:", KT_STR_ARG(param->param.name));
        if (node) {
            value(&p, node, 0);
        } else {
            add(&p, " (a value is required)");
            end(&p, param->param.at);
        }
    }
    sizes(&p, pipeline);
    if (pipeline->n_require) plain(&p, "require:");
    for (int i = 0; i < pipeline->n_require; i++) {
        add(&p, "  - %.*s", KT_STR_ARG(kt_expr_text(pipeline->require[i])));
        end(&p, kt_expr_at(pipeline->require[i]));
    }
    plain(&p, "stages:");
    for (int i = 0; i < pipeline->n_stages; i++) stage(&p, &pipeline->stages[i]);
    if (pipeline->result.text.n) {
        add(&p, "result: %.*s", KT_STR_ARG(pipeline->result.text));
        end(&p, pipeline->result.at);
    }
    kt_buf_deinit(&p.line);
}
