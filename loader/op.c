#include "loader/op.h"

#include "loader/op_read.h"
#include "runtime/base/file.h"

#include <string.h>

static const kt_key op_keys[] = {
    {"kotaro", true, KT_KEY_SCALAR},
    {"name", true, KT_KEY_SCALAR},
    {"doc", true, KT_KEY_SCALAR},
    {"source", false, KT_KEY_SCALAR},
    {"types", false, KT_KEY_MAP},
    {"dims", false, KT_KEY_MAP},
    {"params", false, KT_KEY_MAP},
    {"inputs", false, KT_KEY_MAP},
    {"inout", false, KT_KEY_MAP},
    {"outputs", false, KT_KEY_MAP},
    {"require", false, KT_KEY_LIST},
    {"cost", false, KT_KEY_MAP},
    {"body", false, KT_KEY_LIST},
    {"variants", false, KT_KEY_LIST},
    {"check", false, KT_KEY_MAP},
    {"prepare", false, KT_KEY_MAP},
};

static const kt_key cost_keys[] = {
    {"flops", false, KT_KEY_SCALAR}, {"bytes", false, KT_KEY_SCALAR}};
static const kt_key prepare_keys[] = {
    {"format", true, KT_KEY_SCALAR | KT_KEY_LIST}, {"layout", true, KT_KEY_SCALAR}};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

// ---- shared helpers

const kt_node *kt_op_section(
    kt_op_reader *r, const kt_node *map, const char *key, kt_node_kind kind) {
    const kt_pair *pair = kt_node_find(map, key);
    if (pair == NULL || pair->value->kind != kind) return NULL;
    if (pair->value->n <= KT_OP_MAX_ENTRIES) return pair->value;
    kt_diag_error(
        r->diag, KT_RULE_LIMIT, pair->at, "'%s' has more than %d entries", key, KT_OP_MAX_ENTRIES);
    return NULL;
}

bool kt_op_plain_name(kt_op_reader *r, kt_str name, kt_place at, const char *what) {
    static const char *const words[] = {"and", "or", "not", "else", "min", "max", "select",
        "ceil_div", "align_up", "config", "preprocessor", "json", "sm_count", "smem_max", "cc"};
    kt_node node = {.kind = KT_NODE_SCALAR, .at = at, .text = name};
    kt_str ignored;
    if (!kt_schema_name(&node, what, r->diag, &ignored)) return false;
    if (kt_str_find(name, '.') >= 0)
        return kt_diag_error(r->diag, KT_RULE_NAME, at, "%s cannot be called '%.*s': no dots here",
            what, KT_STR_ARG(name));
    for (size_t i = 0; i < COUNT(words); i++) {
        if (kt_str_is(name, words[i]))
            return kt_diag_error(r->diag, KT_RULE_NAME, at,
                "%s cannot be called '%s', a word of expressions", what, words[i]);
    }
    return true;
}

typedef struct name_check {
    kt_op_reader *r;
    kt_op_names names;
    const char *what;
} name_check;

static void check_name(void *ctx, kt_str name, kt_place at) {
    const name_check *check = ctx;
    for (size_t i = 0; i < check->names.n; i++) {
        if (kt_str_eq(name, check->names.at[i])) return;
    }
    check->r->names_known = false;
    kt_diag_error(check->r->diag, KT_RULE_EXPR, at, "unknown name '%.*s' in %s", KT_STR_ARG(name),
        check->what);
    kt_diag_near(check->r->diag, name, check->names.at, check->names.n, true);
}

void kt_op_check_names(kt_op_reader *r, const kt_expr *expr, kt_op_names names, const char *what) {
    name_check check = {r, names, what};
    if (expr != NULL && r->dims_known) kt_expr_names(expr, check_name, &check);
}

kt_op_names kt_op_known(kt_op_reader *r, const kt_variant *variant, bool device) {
    static const char *const device_names[] = {"sm_count", "smem_max", "cc"};
    const kt_op *op = r->op;
    size_t n = 0, n_tunes = variant == NULL ? 0 : (size_t)variant->n_tunes;
    kt_str *names =
        KT_NEW_ARRAY(r->arena, kt_str, (size_t)op->n_dims + n_tunes + COUNT(device_names));
    for (int i = 0; i < op->n_dims; i++) names[n++] = op->dims[i].name;
    for (size_t i = 0; i < n_tunes; i++) names[n++] = variant->tunes[i].name;
    for (size_t i = 0; device && i < COUNT(device_names); i++)
        names[n++] = kt_str_from(device_names[i]);
    return (kt_op_names){names, n};
}

// ---- type variables, dims, parameters

static void read_choice(
    kt_op_reader *r, const kt_node *item, kt_op_typevar *var, kt_dtype *choices) {
    kt_dtype dtype;
    if (item->kind != KT_NODE_SCALAR || !kt_dtype_find(item->text, &dtype)) {
        kt_str known[KT_DTYPE_COUNT];
        for (int i = 0; i < KT_DTYPE_COUNT; i++) known[i] = kt_str_from(kt_dtype_name((kt_dtype)i));
        kt_diag_error(
            r->diag, KT_RULE_TYPE, item->at, "'%.*s' is no element type", KT_STR_ARG(item->text));
        kt_diag_near(r->diag, item->text, known, KT_DTYPE_COUNT, true);
        return;
    }
    for (int i = 0; i < var->n_choices; i++) {
        if (choices[i] != dtype) continue;
        kt_diag_error(
            r->diag, KT_RULE_TYPE, item->at, "'%s' is listed twice", kt_dtype_name(dtype));
        return;
    }
    choices[var->n_choices++] = dtype;
}

static bool typevar_name_free(kt_op_reader *r, const kt_pair *pair) {
    kt_dtype dtype;
    if (!kt_op_plain_name(r, pair->key, pair->at, "a type")) return false;
    if (!kt_dtype_find(pair->key, &dtype) && !kt_str_is(pair->key, "linear")) return true;
    return kt_diag_error(
        r->diag, KT_RULE_NAME, pair->at, "'%.*s' is a type already", KT_STR_ARG(pair->key));
}

static void read_typevars(kt_op_reader *r) {
    const kt_node *map = kt_op_section(r, r->root, "types", KT_NODE_MAP);
    if (map == NULL) return;
    kt_op_typevar *vars = KT_NEW_ARRAY(r->arena, kt_op_typevar, map->n);
    r->op->typevars = vars;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (!typevar_name_free(r, pair)) continue;
        kt_op_typevar *var = &vars[r->op->n_typevars++];
        kt_dtype *choices = KT_NEW_ARRAY(r->arena, kt_dtype, KT_DTYPE_COUNT);
        *var = (kt_op_typevar){.name = pair->key, .at = pair->at, .choices = choices};
        if (pair->value->kind != KT_NODE_LIST || pair->value->n == 0) {
            kt_diag_error(r->diag, KT_RULE_KEY, pair->value->at,
                "type '%.*s' is a list of element types", KT_STR_ARG(pair->key));
            kt_diag_note(r->diag, "write %.*s: [f16, f32]; the first one is the default",
                KT_STR_ARG(pair->key));
            continue;
        }
        for (size_t k = 0; k < pair->value->n; k++)
            read_choice(r, pair->value->items[k], var, choices);
    }
}

static bool read_binding(kt_op_reader *r, const kt_pair *pair, kt_op_dim *out) {
    const kt_node *value = pair->value;
    if (value->kind != KT_NODE_SCALAR)
        return kt_diag_error(r->diag, KT_RULE_KEY, value->at,
            "dim '%.*s' is a text such as 'plan, tokens', got %s", KT_STR_ARG(pair->key),
            kt_node_kind_name(value));
    ptrdiff_t comma = kt_str_find(value->text, ',');
    size_t end = comma < 0 ? value->text.n : (size_t)comma;
    kt_str word = kt_str_trim(kt_str_slice(value->text, 0, end));
    out->doc =
        comma < 0 ? KT_STR("") : kt_str_trim(kt_str_slice(value->text, end + 1, value->text.n));
    out->binding = kt_str_is(word, "build") ? KT_BINDING_BUILD : KT_BINDING_PLAN;
    if (kt_str_is(word, "build") || kt_str_is(word, "plan")) return true;
    static const kt_str known[] = {{"build", 5}, {"plan", 4}};
    kt_diag_error(r->diag, KT_RULE_VALUE, kt_place_part(value->at, value->text, 0, word.n),
        "dim '%.*s' is bound at '%.*s', expected build or plan", KT_STR_ARG(pair->key),
        KT_STR_ARG(word));
    kt_diag_near(r->diag, word, known, 2, false);
    kt_diag_note(r->diag, "build: a macro of the kernel; plan: an argument of its launch");
    return false;
}

static void read_dims(kt_op_reader *r) {
    const kt_node *map = kt_op_section(r, r->root, "dims", KT_NODE_MAP);
    r->dims_known = map != NULL || kt_node_find(r->root, "dims") == NULL;
    if (!r->dims_known) r->names_known = false;
    if (map == NULL) return;
    kt_op_dim *dims = KT_NEW_ARRAY(r->arena, kt_op_dim, map->n);
    r->op->dims = dims;
    r->dims = dims;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (!kt_op_plain_name(r, pair->key, pair->at, "a dim")) continue;
        kt_op_dim *dim = &dims[r->op->n_dims++];
        *dim = (kt_op_dim){.name = pair->key, .at = pair->at, .solved_by = -1};
        read_binding(r, pair, dim); // a dim with a wrong binding still is a name
    }
}

static void read_params(kt_op_reader *r) {
    const kt_node *map = kt_op_section(r, r->root, "params", KT_NODE_MAP);
    if (map == NULL) return;
    kt_param *params = KT_NEW_ARRAY(r->arena, kt_param, map->n);
    r->op->params = params;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        kt_param *param = &params[r->op->n_params];
        if (!kt_op_plain_name(r, pair->key, pair->at, "a parameter")) continue;
        r->op->n_params++;
        if (!kt_param_parse(r->arena, pair->key, pair->at, pair->value, r->diag, param)) continue;
        bool number = param->kind == KT_PARAM_INT || param->kind == KT_PARAM_F32 ||
                      param->kind == KT_PARAM_BOOL;
        if (!number && param->kind != KT_PARAM_CHOICE)
            kt_diag_error(r->diag, KT_RULE_VALUE, kt_node_find(pair->value, "type")->value->at,
                "a parameter of an op is int, f32, bool or choice");
    }
    for (int i = 0; i < r->op->n_params; i++) {
        int dim = kt_op_dim_find(r->op, params[i].name);
        if (dim < 0) continue;
        kt_diag_error(r->diag, KT_RULE_NAME, params[i].at, "'%.*s' is a dim and a parameter",
            KT_STR_ARG(params[i].name));
        kt_diag_note_at(r->diag, r->op->dims[dim].at, "the dim is declared");
    }
}

// ---- ports

static bool is_input_form(const kt_expr *axis) {
    kt_str name;
    int64_t add;
    return kt_expr_is_axis(axis, &name, &add);
}

static void check_port_axes(kt_op_reader *r, const kt_op_port *port) {
    kt_op_names dims = kt_op_known(r, NULL, false);
    const char *what = kt_arena_printf(r->arena, "the type of '%.*s'", KT_STR_ARG(port->name));
    for (int i = 0; i < port->type.rank; i++) {
        const kt_expr *axis = port->type.axis[i];
        kt_op_check_names(r, axis, dims, what);
        if (port->kind == KT_PORT_OUTPUT || is_input_form(axis)) continue;
        kt_diag_error(r->diag, KT_RULE_TYPE, kt_expr_at(axis),
            "an axis of an input is a name, a number, or name + number, got '%.*s'",
            KT_STR_ARG(kt_expr_text(axis)));
        kt_diag_note(
            r->diag, "give the axis a dim of its own and state the relation under 'require'");
    }
}

static void check_port_type(kt_op_reader *r, const kt_op_port *port) {
    const kt_type *type = &port->type;
    if (type->base == KT_BASE_HOST || type->each) {
        kt_diag_error(r->diag, KT_RULE_TYPE, type->at, "'%.*s' is a type of host steps",
            KT_STR_ARG(type->text));
        kt_diag_note(r->diag, "an op takes and makes tensors: f16[n, d]");
        return;
    }
    if (type->base == KT_BASE_LINEAR && port->kind != KT_PORT_INPUT)
        kt_diag_error(r->diag, KT_RULE_TYPE, type->at,
            "only an input can be linear: it is a weight of the model");
    if (type->optional && port->kind != KT_PORT_INPUT)
        kt_diag_error(r->diag, KT_RULE_TYPE, type->at, "only an input may be absent ('?')");
    check_port_axes(r, port);
}

// Equal names, and a name that is a group as well ("w" beside "w.q").
static void check_port_name(
    kt_op_reader *r, const kt_op_port *ports, int n, const kt_op_port *port) {
    for (int i = 0; i < n; i++) {
        kt_str a = ports[i].name, b = port->name;
        kt_str less = a.n < b.n ? a : b, more = a.n < b.n ? b : a;
        bool same = kt_str_eq(a, b);
        bool group = kt_str_starts(more, less) && more.n > less.n && more.at[less.n] == '.';
        if (!same && !group) continue;
        if (same) {
            kt_diag_error(
                r->diag, KT_RULE_NAME, port->at, "'%.*s' is declared twice", KT_STR_ARG(b));
        } else {
            kt_diag_error(r->diag, KT_RULE_NAME, port->at, "'%.*s' is a tensor and a group",
                KT_STR_ARG(less));
        }
        kt_diag_note_at(r->diag, ports[i].at, "'%.*s' is declared first", KT_STR_ARG(a));
        return;
    }
}

static int read_ports(kt_op_reader *r, const char *key, kt_port_kind kind, kt_op_port *ports) {
    const kt_node *map = kt_op_section(r, r->root, key, KT_NODE_MAP);
    if (map == NULL) return 0;
    kt_str *vars = KT_NEW_ARRAY(r->arena, kt_str, r->op->n_typevars);
    for (int i = 0; i < r->op->n_typevars; i++) vars[i] = r->op->typevars[i].name;
    int before = r->op->n_ports;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        kt_op_port port = {.name = pair->key, .at = pair->at, .kind = kind};
        kt_node name = {.kind = KT_NODE_SCALAR, .at = pair->at, .text = pair->key};
        kt_str ignored;
        if (!kt_schema_name(&name, "a tensor", r->diag, &ignored)) continue;
        check_port_name(r, ports, r->op->n_ports, &port);
        bool good = kt_type_parse(
            r->arena, pair->value, vars, (size_t)r->op->n_typevars, r->diag, &port.type);
        if (good) check_port_type(r, &port);
        if (!good) {
            port.type.rank = 0; // the name is known, its axes are not
            r->types_known = false;
        }
        ports[r->op->n_ports++] = port;
    }
    return r->op->n_ports - before;
}

static void solve_dims(const kt_op *op, kt_op_dim *dims) {
    for (int pass = 0; pass < 2; pass++) { // required ports first
        for (int i = 0; i < op->n_inputs + op->n_inout; i++) {
            const kt_type *type = &op->ports[i].type;
            if (type->optional != (pass == 1)) continue;
            for (int k = 0; k < type->rank; k++) {
                kt_str name;
                int64_t add;
                if (!kt_expr_is_axis(type->axis[k], &name, &add)) continue;
                int dim = kt_op_dim_find(op, name);
                if (dim >= 0 && dims[dim].solved_by < 0) dims[dim].solved_by = i;
            }
        }
    }
}

static void read_all_ports(kt_op_reader *r) {
    kt_op *op = r->op;
    static const char *const sections[] = {"inputs", "inout", "outputs"};
    size_t n = 0;
    for (size_t i = 0; i < COUNT(sections); i++) {
        const kt_node *map = kt_op_section(r, r->root, sections[i], KT_NODE_MAP);
        n += map == NULL ? 0 : map->n;
    }
    kt_op_port *ports = KT_NEW_ARRAY(r->arena, kt_op_port, n);
    op->ports = ports;
    op->n_inputs = read_ports(r, "inputs", KT_PORT_INPUT, ports);
    op->n_inout = read_ports(r, "inout", KT_PORT_INOUT, ports);
    op->n_outputs = read_ports(r, "outputs", KT_PORT_OUTPUT, ports);
    if (r->keys_known && kt_node_find(r->root, "outputs") == NULL &&
        kt_node_find(r->root, "inout") == NULL)
        kt_diag_error(r->diag, KT_RULE_KEY, op->at,
            "op '%.*s' changes nothing: it has neither 'outputs' nor 'inout'",
            KT_STR_ARG(op->name));
    for (int i = 0; i < op->n_typevars; i++) {
        bool used = false;
        for (int k = 0; k < op->n_ports; k++)
            used = used || (ports[k].type.base == KT_BASE_VAR &&
                               kt_str_eq(ports[k].type.var, op->typevars[i].name));
        if (!used)
            kt_diag_error(r->diag, KT_RULE_NAME, op->typevars[i].at, "type '%.*s' is never used",
                KT_STR_ARG(op->typevars[i].name));
    }
}

// ---- the other keys

static void read_require(kt_op_reader *r) {
    const kt_node *list = kt_op_section(r, r->root, "require", KT_NODE_LIST);
    if (list == NULL) return;
    const kt_expr **require = KT_NEW_ARRAY(r->arena, const kt_expr *, list->n);
    r->op->require = require;
    for (size_t i = 0; i < list->n; i++) {
        const kt_expr *expr = kt_expr_node(r->arena, list->items[i], r->diag);
        if (expr == NULL) continue;
        kt_op_check_names(r, expr, kt_op_known(r, NULL, false), "a requirement");
        require[r->op->n_require++] = expr;
    }
}

static const kt_expr *read_cost(kt_op_reader *r, const kt_node *map, const char *key) {
    const kt_node *node = kt_op_section(r, map, key, KT_NODE_SCALAR);
    const kt_expr *expr = node == NULL ? NULL : kt_expr_node(r->arena, node, r->diag);
    kt_op_check_names(r, expr, kt_op_known(r, NULL, false), "a cost");
    return expr;
}

static void read_costs(kt_op_reader *r) {
    const kt_node *map = kt_op_section(r, r->root, "cost", KT_NODE_MAP);
    if (map == NULL) return;
    kt_schema_check(map, "a cost", cost_keys, COUNT(cost_keys), false, r->diag);
    r->op->cost_flops = read_cost(r, map, "flops");
    r->op->cost_bytes = read_cost(r, map, "bytes");
}

static void read_body(kt_op_reader *r) {
    const kt_node *list = kt_op_section(r, r->root, "body", KT_NODE_LIST);
    if (list == NULL) return;
    kt_step *steps = KT_NEW_ARRAY(r->arena, kt_step, list->n);
    r->op->body = steps;
    // A step with a mistake stays: the names that it makes are known further down.
    for (size_t i = 0; i < list->n; i++) {
        kt_step *step = &steps[r->op->n_body++];
        if (!kt_step_parse(r->arena, list->items[i], true, r->diag, step)) r->body_known = false;
    }
}

// `format`: a name, or a list of names.
static void read_prepare_formats(kt_op_reader *r, const kt_node *node) {
    bool many = node->kind == KT_NODE_LIST;
    size_t n = many ? node->n : 1;
    if (n == 0) kt_diag_error(r->diag, KT_RULE_KEY, node->at, "'format' is an empty list");
    kt_ref *formats = KT_NEW_ARRAY(r->arena, kt_ref, n);
    r->op->prepare_formats = formats;
    for (size_t i = 0; i < n; i++) {
        const kt_node *item = many ? node->items[i] : node;
        kt_ref *format = &formats[r->op->n_prepare_formats];
        format->at = item->at;
        if (kt_schema_name(item, "a format", r->diag, &format->text)) r->op->n_prepare_formats++;
    }
}

static void read_prepare(kt_op_reader *r) {
    const kt_node *map = kt_op_section(r, r->root, "prepare", KT_NODE_MAP);
    if (map == NULL) return;
    kt_schema_check(map, "'prepare'", prepare_keys, COUNT(prepare_keys), false, r->diag);
    const kt_pair *format = kt_node_find(map, "format");
    const kt_node *layout = kt_op_section(r, map, "layout", KT_NODE_SCALAR);
    if (format != NULL && format->value->kind != KT_NODE_MAP)
        read_prepare_formats(r, format->value);
    if (layout != NULL) kt_schema_name(layout, "a layout", r->diag, &r->op->prepare_layout);
}

static void read_head(kt_op_reader *r) {
    kt_op *op = r->op;
    const kt_node *name = kt_op_section(r, r->root, "name", KT_NODE_SCALAR);
    const kt_node *doc = kt_op_section(r, r->root, "doc", KT_NODE_SCALAR);
    const kt_node *cite = kt_op_section(r, r->root, "source", KT_NODE_SCALAR);
    if (doc != NULL) op->doc = doc->text;
    if (cite != NULL) op->cite = cite->text;
    op->source = r->root->at.source;
    op->at = name != NULL ? name->at : r->root->at;
    if (name == NULL || !kt_op_plain_name(r, name->text, name->at, "an op")) return;
    op->name = name->text;
    const char *folder = kt_path_name(op->folder);
    if (kt_str_is(op->name, folder)) return;
    kt_diag_error(r->diag, KT_RULE_NAME, name->at, "op '%.*s' lies in a folder called '%s'",
        KT_STR_ARG(op->name), folder);
    kt_diag_note(r->diag, "an op is found by the name of its folder: rename one of them");
}

static void read_contract(kt_op_reader *r) {
    r->keys_known = kt_schema_check(r->root, "an op", op_keys, COUNT(op_keys), false, r->diag);
    read_head(r);
    read_typevars(r);
    read_dims(r);
    read_params(r);
    read_all_ports(r);
    solve_dims(r->op, r->dims);
    read_require(r);
    read_costs(r);
    read_prepare(r);
}

static void check_solutions(kt_op_reader *r) {
    kt_op *op = r->op;
    bool body = kt_node_find(r->root, "body") != NULL,
         variants = kt_node_find(r->root, "variants") != NULL;
    if (r->keys_known && !body && !variants) {
        kt_diag_error(r->diag, KT_RULE_KEY, op->at, "op '%.*s' has neither a body nor a variant",
            KT_STR_ARG(op->name));
        kt_diag_note(r->diag, "'variants' names its kernels, 'body' makes it of other ops");
    }
    if (r->keys_known && variants && kt_node_find(r->root, "check") == NULL) {
        kt_diag_error(r->diag, KT_RULE_KEY, op->at, "op '%.*s' has kernels but no 'check'",
            KT_STR_ARG(op->name));
        kt_diag_note(r->diag, "kernels are tested from the manifest: give 'tolerance' and 'cases'");
    }
}

const kt_op *kt_op_read(
    kt_arena *arena, const kt_node *root, const char *folder, bool shipped, kt_diag *diag) {
    int errors = diag->n_errors;
    if (!kt_schema_kind(root, "op", diag)) return NULL;
    kt_op *op = KT_NEW(arena, kt_op);
    op->folder = folder;
    op->shipped = shipped;
    kt_op_reader r = {.arena = arena, .diag = diag, .root = root, .op = op};
    r.types_known = r.body_known = r.names_known = true;
    read_contract(&r);
    read_body(&r);
    kt_op_read_variants(&r);
    check_solutions(&r);
    kt_op_check_dims_used(&r);
    kt_op_check_body(&r);
    kt_op_check_macros(&r);
    kt_op_check_prepare(&r);
    kt_op_check_cases(&r);
    return diag->n_errors == errors ? op : NULL;
}

const kt_op *kt_op_open(kt_arena *arena, const char *folder, bool shipped, kt_diag *diag) {
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    folder = kt_arena_copy(arena, folder, n);
    const char *path = kt_path_join(arena, folder, "op.yaml");
    const kt_node *root = kt_yaml_open(arena, path, path, diag);
    return root == NULL ? NULL : kt_op_read(arena, root, folder, shipped, diag);
}

// ---- finding

int kt_op_dim_find(const kt_op *op, kt_str name) {
    for (int i = 0; i < op->n_dims; i++) {
        if (kt_str_eq(op->dims[i].name, name)) return i;
    }
    return -1;
}

char kt_op_macro_char(char c) {
    if (c == '.') return '_';
    if (c < 'a' || c > 'z') return c;
    return (char)(c - 'a' + 'A');
}

int kt_op_port_find(const kt_op *op, kt_str name) {
    for (int i = 0; i < op->n_ports; i++) {
        if (kt_str_eq(op->ports[i].name, name)) return i;
    }
    return -1;
}

int kt_op_param_find(const kt_op *op, kt_str name) {
    for (int i = 0; i < op->n_params; i++) {
        if (kt_str_eq(op->params[i].name, name)) return i;
    }
    return -1;
}

int kt_op_typevar_find(const kt_op *op, kt_str name) {
    for (int i = 0; i < op->n_typevars; i++) {
        if (kt_str_eq(op->typevars[i].name, name)) return i;
    }
    return -1;
}
