// Prompts: from texts and a picture's grid to token ids, by the templates of a model file.
//
// A prompt is: system message, user message (picture, shared text and question, those there are,
// with `join` between), and the opening of the answer. It is tokenised as one text, as the
// reference does. Only the templates and the picture's markup can yield special tokens; special
// tokens' names in the user's texts stay plain text. A picture's tokens are -1, -2, ...: id -1 - r
// stands for row r of the picture's features, [views * queries] rows: the overview first, then the
// slices row by row.
//
// mode branches: one prompt for each question. mode joint: one prompt whose question is all of
// them, one a line, as "1. first" "2. second"; one question alone is not numbered. kt_chat_split
// takes such an answer apart.
#ifndef KT_LOADER_CHAT_H
#define KT_LOADER_CHAT_H

#include "loader/tokenizer.h"

// The `chat` section of a model file.
typedef struct kt_chat_template {
    kt_str system, user, assistant; // a message of each role; "$text" in it is the text
    kt_str answer;                  // where the model goes on
    kt_str default_system;          // empty: no system message
    kt_str join;
    const kt_str *stop; // tokens that end an answer
    int n_stop;
} kt_chat_template;

// The `picture` section of a model file: what stands for a picture in a prompt.
typedef struct kt_picture_markup {
    kt_str scheme; // how a picture is cut; not used here
    kt_str text;   // may hold $index (of the picture), $view (its queries), $slices
    kt_str slice;  // one slice; holds $view
    kt_str row;    // between rows of slices
    kt_str token;  // what the reference writes for each query; must be an added token
} kt_picture_markup;

typedef struct kt_picture_grid {
    int cols, rows; // of slices; 0, 0 when there is the overview only
    int queries;    // tokens of a view
    int index;      // $index: the number of the picture in the conversation, from 0
} kt_picture_grid;

typedef struct kt_chat_request {
    kt_str system; // empty: the template's default
    kt_str shared; // may be empty
    const kt_str *asks;
    int n_asks; // at least 1
    bool joint;
    const kt_picture_grid *grid; // NULL: no picture
} kt_chat_request;

typedef struct kt_prompt {
    const int32_t *ids;
    int64_t n;
} kt_prompt;

typedef struct kt_prompts {
    kt_prompt *at;
    int n; // n_asks, or 1 when joint
    const int32_t *stop;
    int n_stop;
    int64_t picture_rows; // rows that the picture's tokens name: views * queries
} kt_prompts;

// Errors: EPROMPT (a text that is not UTF-8 or far too long), EMODEL (a template lacks "$text", or
// names a token that the tokenizer does not have: <|name|> in `chat`, <name> in `picture` where
// there is one; the message names token and file).
kt_status kt_chat_write(kt_arena *arena, const kt_tokenizer *tokenizer,
    const kt_chat_template *chat, const kt_picture_markup *markup, const kt_chat_request *request,
    kt_prompts *out, kt_err *err) KT_MUST_CHECK;
// The text of prompt `which` with special tokens by name and views as "[64 x <unk>]", for people.
kt_status kt_chat_print(const kt_chat_template *chat, const kt_picture_markup *markup,
    const kt_chat_request *request, int which, kt_buf *out, kt_err *err) KT_MUST_CHECK;

bool kt_chat_stops(const kt_prompts *prompts, int32_t id); // is it one of the stop tokens?

// ---- answers

bool kt_chat_blank(char c);       // answers neither begin nor end with such a character
kt_str kt_chat_trim(kt_str text); // without those at its ends

// Takes a joint answer apart. A line that begins with the number of an item and one of . ) : (also
// "(2)", "**2.**", full-width forms) begins that item's answer if the number is higher than the
// last one; it ends where the next begins. answers[i] is trimmed, points into `answer`, and is
// empty where no number was found. What comes before the first number is dropped. Without any
// number, or with one item, all of it is the first item's. Returns how many were found.
int kt_chat_split(kt_str answer, int n, kt_str *answers);

#endif
