"""What the reference says about one picture and one question, as a folder for `kotaro verify`.

Every stage of the f32 run is written, with a tolerance from the reference itself: the relative error
||x - f32|| / ||f32|| of the same stage in the runs x that round where Kotaro does (numerics.py: cpu and gpu, the
larger one), times MARGIN. Kotaro sums in other orders and so rounds other numbers up: as far from f32, but
not the same way. Over many rows the two norms hardly differ; a single row's error may be small by
chance, so where fewer than FEW rows are compared the largest error of any row counts (for logits: of the
prompt's last SAMPLE tokens). Pixels and ids are exact.
"""
import json
from pathlib import Path

import numpy as np

import prompt
from arrays import NAME, to_numpy
from model import Model
from numerics import MODES
from picture import Seen, write_png

MARGIN = 2
FLOOR = 2.0 ** -20  # f32 sums in another order
FEW, SAMPLE = 16, 32


def relative(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def error(runs, mode, part):
    """Of the rows `part`, or of the worst row of all if these are few."""
    a, b = runs[mode], runs["f32"]
    if len(b[part]) >= FEW:
        return relative(a[part], b[part])
    return max(relative(x, y) for x, y in zip(a, b))


class Stages:
    """What `see` of the model gets: stage -> mode -> numpy f32."""

    def __init__(self):
        self.of = {}

    def __call__(self, mode, stage, x):
        self.of.setdefault(stage, {})[mode] = to_numpy(x)


class Golden:
    def __init__(self, folder):
        self.folder, self.stages, self.table = folder, [], []
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, name, address, array, **more):
        file = name.replace(" ", "") + ".npy"
        np.save(self.folder / file, np.ascontiguousarray(array))
        self.stages.append({"name": name, "address": address, "file": file, **more})

    def exact(self, name, address, array, **more):
        self.put(name, address, array, kind="exact", why="bytes and ids are not rounded", **more)

    def close(self, name, address, runs, plus=None, rows=None, batch=None, take=slice(None)):
        """runs: the stage of each mode. take: the rows of it that the program makes; rows: how many are kept."""
        more = {"kind": "float"}
        if plus:
            more["plus"] = plus
        if batch is not None:
            more["batch"] = batch
        whole = range(len(runs["f32"]))[take]
        if rows and rows < len(whole):
            more["rows"] = [len(whole) - rows, len(whole)]
            whole = whole[-rows:]
        part = slice(whole.start, whole.stop)
        errors = [error(runs, m, part) for m in ("cpu", "gpu", "bf16")]
        worst = max(errors[:2])
        more["relative"] = float(f"{MARGIN * worst + FLOOR:.3g}")
        where = "" if len(whole) >= FEW else " in its worst row"
        more["why"] = (f"{MARGIN} x {worst:.2e}, the reference's own error{where} with f16 where Kotaro has it; "
                       f"bf16's {errors[2]:.2e}")
        self.table.append((name, *errors))
        self.put(name, address, runs["f32"][part].astype(np.float32), **more)

    def write(self, **head):
        head = {"kotaro": "golden/1", **head, "stages": self.stages}
        (self.folder / "golden.json").write_text(json.dumps(head, indent=1) + "\n")


def likeliest(logits):
    """(token, could f16 choose another one?) of the last row, of the runs f32 and gpu."""
    f32, gpu = (np.asarray(logits[m])[-1] for m in ("f32", "gpu"))
    best = np.sort(f32)[-2:]
    return int(f32.argmax()), bool(best[1] - best[0] < 4 * np.abs(f32 - gpu).max())


def answer(model, ids, picture, n, stop):
    """Up to n greedy tokens of the f32 run, ended by a stop token, and before one that f16 could choose
    differently."""
    made = []
    while len(made) < n and not (made and made[-1] in stop):
        last = slice(len(ids) + len(made) - 1, None)
        logits = model.read(("f32", "gpu"), ids + made, lambda *_: None, picture, rows=last)
        token, open_ = likeliest({m: to_numpy(x) for m, x in logits.items()})
        if open_:
            break
        made.append(token)
    return made


SETTINGS = {"image.longest": 0, "image.orientation": "ignore", "sampler.temperature": 0,
            "sampler.repetition_penalty": 1}


def put_picture(golden, seen, stages, model, rows):
    golden.exact("resized", "vision.pixels", seen.targets)
    golden.close("pixels", "vision.cells", stages["pixels"], rows=rows and rows // 4)
    golden.close("patch embedding", "vision.x0", stages["patches"], plus="vision.p0")
    for i in range(model.vision.layers):
        if f"vision {i}" in stages:
            golden.close(f"vision block {i}", f"vision[v={i}].x1", stages[f"vision {i}"], plus=f"vision[v={i}].p1")
    golden.close("vision norm", "vision.seen", stages["seen"])
    golden.close("resampler", "vision.rows", stages["resampled"])


def put_text(golden, ids, made, stages, model, rows, chunk):
    """The program prefills all but the last token of the prompt, `chunk` at a time, then takes one token a step.
    made: the answer; empty if only the first step's logits are to be compared."""
    n = len(ids) - 1
    for batch, start in enumerate(range(0, n, chunk)):
        part = slice(start, min(start + chunk, n))
        more = f" chunk {batch}" if chunk < n else ""
        golden.exact("prompt" + more, "prompt.chunk.ids", np.array(ids[part], np.int32), batch=batch)
        golden.close("embedding" + more, "prefill.x0", stages["embedded"], "prefill.p0", rows, batch, part)
        for i in range(model.text.layers):
            if f"decoder {i}" in stages:
                golden.close(f"decoder layer {i}{more}", f"prefill[l={i}].x1", stages[f"decoder {i}"],
                             f"prefill[l={i}].p1", rows, batch, part)
    steps = max(1, len(made))
    first = len(stages["logits"]["f32"]) - steps
    for t in range(steps):
        golden.close(f"logits {t}", "decode.logits", stages["logits"], batch=t, take=slice(first + t, first + t + 1))
    if made:
        golden.exact("answer", "answer.answers", np.array([made], np.int32))


def make(folder, model_folder, rgb, question, tokens=3, rows=None, device="cpu", chunk=None):
    """Returns [(stage, errors as on the CPU, on the GPU, in bf16)]. rows: the last ones of the text stages (a
    quarter of it of the pixels) that are kept.
    chunk: tokens of a prefill chunk, None: all."""
    model = Model(model_folder, device)
    golden, stages = Golden(folder), Stages()
    settings = Path(model_folder) / "preprocessor_config.json"
    seen = Seen(rgb, model.config, json.loads(settings.read_text()) if settings.exists() else None)
    write_png(folder / "picture.png", rgb)
    queries = model.config["query_num"]
    tokenizer = prompt.Tokenizer(Path(model_folder) / "tokenizer.json")
    ids = prompt.write_prompt(tokenizer, question, seen.grid, queries)
    picture = model.look(MODES, seen.pixels, seen.sizes, stages)
    stop = [tokenizer.added[t] for t in prompt.STOP]
    made = answer(model, ids, picture, tokens, stop) if tokens > 1 else []
    model.read(MODES, ids + made[:-1], stages, picture, rows=slice(max(0, len(ids) - SAMPLE), None))
    if tokens == 1:
        token, open_ = likeliest(stages.of["logits"])
        made = [] if open_ else [token]
    put_picture(golden, seen, stages.of, model, rows)
    chunk = chunk or max(512, len(ids))
    put_text(golden, ids, made, stages.of, model, rows, chunk)
    golden.write(doc=f"the reference on {NAME}, f32; {len(seen.sizes)} views",
                 pipeline="analyze.base.yaml", model="." if model_folder == folder else None,
                 image="picture.png", question=question,
                 set={**SETTINGS, "chunk": chunk}, greedy=True, max_tokens=max(1, len(made)))
    return golden.table
