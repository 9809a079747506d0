#!/usr/bin/env python3
"""Plants bugs in the kernels and shows which of them the op tests notice.

    mutate.py [--seed 1] [--count 66] [--only NAME...] [--fast] [--jobs 2] [--table FILE] [--keep DIR] [--san] [--list]

Half of the bugs are those of tests/data/mutations.txt, made by hand; the others are mechanical edits of
ops/*/*.cu and ptx/device/*.cuh (but of machine.cuh and mma.cuh), --count of them, drawn from --seed. A bug is planted in
a copy of ops/; a bug of a header goes in front of the kernels that include it, where its include guard keeps the
header itself out. Then build/tests/gpu_ops runs the ops concerned over the stand-ins (tests/emu/emu.h), the quickest
first, with one seed, then another, then (--san) under the sanitizers of build-san, until a test fails. Before, the same
ops must pass as they are.

--only names bugs (by hand) or, as m7, the seventh mechanical one. --fast takes those that are marked so, and no
mechanical ones. A bug that does not compile is not counted, another one is drawn. The exit code is 1 if a bug made
by hand is missed that is not known to be, or if one is noticed that is.
Environment: BUILD (build), KOTARO_EMU, KOTARO_EMU_SEED, KOTARO_EMU_ORDERS (see tests/emu/driver.h).
"""
import argparse
import concurrent.futures
import functools
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
BUILD = TREE / os.environ.get("BUILD", "build")
MACHINE = {"machine.cuh", "mma.cuh"}  # the stand-ins replace them
SANITIZED = TREE / "build-san"  # of --san
# Stand-ins, and the seed of the op tests' sizes and numbers. The second try also runs every launch in another order.
TRIES = ((BUILD, 1), (BUILD, 2), (SANITIZED, 1))
SECONDS = 900  # for an op's tests at most


# ---- sources

class Source:
    """A kernel source: its text, and where its code is."""

    def __init__(self, path):
        self.path = path
        self.text = (TREE / path).read_text()
        self.name = Path(path).name
        self.code = blank(self.text)
        self.macros = re.findall(r"^#define (\w+) ([^\n]*)", self.text, re.M)

    def line(self, at):
        return self.text.count("\n", 0, at) + 1


def blank(text):
    """The text with spaces in place of comments, of preprocessor lines and of what the compiler alone looks at."""
    def spaces(match):
        return re.sub(r"[^\n]", " ", match.group())
    text = re.sub(r"//[^\n]*|/\*.*?\*/", spaces, text, flags=re.S)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", spaces, text, flags=re.M)
    text = re.sub(r'extern "C"|"[^"\n]*"', spaces, text)
    return re.sub(r"static_assert\(.*?\);|__launch_bounds__\([^)]*\)", spaces, text, flags=re.S)


def all_sources():
    paths = sorted(TREE.glob("ptx/device/*.cuh")) + sorted(TREE.glob("ops/*/*.cu"))
    return {str(p.relative_to(TREE)): Source(str(p.relative_to(TREE))) for p in paths if p.name not in MACHINE}


def pieces(source):
    """Definitions at the top level of a file: (from, to, names)."""
    out, at = [], 0
    for part in re.split(r"(?<=\n\})\n|(?<=\n\};)\n|(?<=;)\n(?=\S)", source.code):
        head = "\n".join(l for l in part.split("\n") if l[:1].strip() and not l.startswith("}"))
        names = set(re.findall(r"\b(?:struct|enum)\s+(?:alignas\(\d+\) )?(\w+)", head))
        names |= set(re.findall(r"(\w+)\s*\(", head)[-1:] if "(" in head else [])
        names |= set(re.findall(r"^    (KT_\w+)", part, re.M)) if head.startswith("enum") else set()
        names |= set(re.findall(r"(\w+) =", head))
        names.discard("alignas")
        out.append((at, at + len(part), names))
        at += len(part) + 1
    return out


def ops_of(sources, path, at):
    """The ops whose kernels have this place of a file in them."""
    if path.startswith("ops/"):
        return [path.split("/")[1]]
    parts = [(s, begin, end, names) for s in sources.values() for begin, end, names in pieces(s)]
    reached = set().union(*(names for s, begin, end, names in parts if s.path == path and begin <= at < end))
    ops, size = set(), -1
    while size < len(reached) + len(ops):
        size = len(reached) + len(ops)
        words = re.compile(r"\b(?:%s)\b" % "|".join(map(re.escape, sorted(reached)))) if reached else None
        reached |= {name for s in sources.values() for name, value in s.macros if words and words.search(value)}
        for source, begin, end, names in parts:
            if words and words.search(source.code, begin, end):
                if source.path.startswith("ops/"):
                    ops.add(source.path.split("/")[1])
                else:
                    reached |= names
    return sorted(op for op in ops if Path(path).name in included(f"ops/{op}/{op}.cu"))


@functools.lru_cache(maxsize=None)
def included(path):
    """The headers that a source includes, itself or through others."""
    names = set(re.findall(r'^#include "(\w+\.cuh)"', (TREE / path).read_text(), re.M))
    return names.union(*(included(f"ptx/device/{name}") for name in names))


# ---- bugs

class Bug:
    def __init__(self, name, kind, path, text, line, edit, ops, miss=None, fast=False, by_hand=True):
        self.name, self.kind, self.path, self.text, self.line, self.edit = name, kind, path, text, line, edit
        self.ops, self.miss, self.fast, self.by_hand = ops, miss, fast, by_hand
        self.how, self.op, self.seconds, self.note = None, "", 0.0, ""

    def plant(self, sources, folder):
        """Writes the bug into the copy of ops/ in `folder`."""
        if self.path.startswith("ops/"):
            (folder / self.path).write_text(self.text)
            return
        name = Path(self.path).name
        for path in (f"ops/{op}/{op}.cu" for op in self.ops):
            (folder / path).write_text(f'#line 1 "{name}"\n{self.text}\n#line 1 "{path}"\n{sources[path].text}')


def fail(text):
    sys.exit(f"mutate.py: {text}")


def edited(source, hunks, name):
    """The text after a bug's edits, the line of the first, and old -> new for the table."""
    text, line, edits = source.text, 0, []
    for hunk in hunks:
        old = "\n".join(l[1:] for l in hunk if l[:1] in " -")
        new = "\n".join(l[1:] for l in hunk if l[:1] in " +")
        if text.count(old) != 1:
            fail(f"'{name}': this is {text.count(old)} times in {source.path}:\n{old}")
        kept = next(i for i, l in enumerate(hunk) if l[:1] != " ")
        line = line or source.line(source.text.index(old)) + kept
        text = text.replace(old, new)
        gone = " ".join(l[1:].strip() for l in hunk if l[:1] == "-")
        come = " ".join(l[1:].strip() for l in hunk if l[:1] == "+")
        edits.append(f"{gone} -> {come}" if come else f"without {gone}")
    return text, line, "; ".join(edits)


def read_bugs(sources, data):
    """The bugs made by hand, and by path and text the reasons why some mechanical ones are no bugs."""
    bugs, harmless = [], {}
    for block in re.split(r"^(?=\[)", data.read_text(), flags=re.M)[1:]:
        name = block[1:block.index("]")]
        keys, hunks = {}, [[]]
        for line in block.rstrip("\n").split("\n")[1:]:
            if line == "...":
                hunks.append([])
            elif line[:1] in (" ", "-", "+"):
                hunks[-1].append(line)
            elif ": " in line and not line.startswith("#"):
                key, value = line.split(": ", 1)
                keys[key] = value
            elif line and not line.startswith("#"):
                fail(f"'{name}': cannot read '{line}'")
        unknown = set(keys) - {"kind", "file", "ops", "fast", "miss", "harmless"}
        if unknown or keys.get("file") not in sources:
            fail(f"'{name}': {'unknown key ' + min(unknown) if unknown else 'no such file'}")
        source = sources[keys["file"]]
        text, line, edit = edited(source, hunks, name)
        if "harmless" in keys:
            harmless[source.path, text] = keys["harmless"]
            continue
        ops = keys["ops"].split()
        for op in ops:
            if f"ops/{op}/{op}.cu" not in sources:
                fail(f"'{name}': no op '{op}'")
        bugs.append(Bug(name, keys["kind"], source.path, text, line, edit, ops, keys.get("miss"), "fast" in keys))
    return bugs, harmless


# Mechanical edits: name, pattern (group 1 is replaced), what comes instead.
def swapped(pairs):
    return lambda m: pairs[m.group(1)]


EDITS = [
    ("barrier dropped", r"\b(kt_sync\(\)|kt_sync_warp\(\)|kt_fence\(\))", lambda m: "(void)0"),
    ("commit dropped", r"\b(kt_copy_commit\(\))", lambda m: "(void)0"),
    ("waits for less", r"kt_copy_wait<([^>]*)>", lambda m: f"{m.group(1)} + 1"),
    ("comparison", r"(?<= )(<|<=|>|>=|==|!=)(?= )",
     swapped({"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="})),
    ("plus and minus", r"(?<= )(\+|-)(?= )", swapped({"+": "-", "-": "+"})),
    ("times and divided", r"(?<= )(\*|/|%)(?= )", swapped({"*": "/", "/": "*", "%": "/"})),
    ("constant", r"(?<![\w.])(\d+)(?![\w.])", lambda m: str(int(m.group(1)) + 1)),
    ("shuffle", r"kt_shfl_xor\(\w+(?:\[\w+\])?, (\w+)\)", lambda m: f"{m.group(1)} / 2"),
    ("factor dropped", r"( \* KT_[A-Z_]+)\b", lambda m: ""),
    ("condition negated", r"\bif \((?!constexpr)((?:[^()\n]|\([^()\n]*\)|\((?:[^()\n]|\([^()\n]*\))*\))*)\)",
     lambda m: f"!({m.group(1)})"),
    ("statement dropped", r"^ +((?!return\b|const\b|constexpr\b|typedef\b|using\b)\*?[a-z]\w*(?:(?:\.|->)\w+|\[[^\n=]*?\])*"
     r" (?:[-+*|&^]|<<|>>)?= [^;{}]*);", lambda m: "(void)0"),
    ("least and most", r"\b(kt_min|kt_max)(?=\()", swapped({"kt_min": "kt_max", "kt_max": "kt_min"})),
    ("and, or", r"(?<= )(&&|\|\|)(?= )", swapped({"&&": "||", "||": "&&"})),
    ("axis", r"\b(?:blockIdx|threadIdx|gridDim|blockDim)\.([xyz])\b", swapped({"x": "y", "y": "x", "z": "y"})),
    ("lane and warp", r"\b(kt_lane|kt_warp)(?=\(\))", swapped({"kt_lane": "kt_warp", "kt_warp": "kt_lane"})),
]


def edits_of(sources):
    """All places, by the name of the edit: (path, begin, end, new text)."""
    out = {}
    for name, pattern, new in EDITS:
        out[name] = [(s.path, m.start(1), m.end(1), new(m)) for s in sources.values()
                     for m in re.finditer(pattern, s.code, re.M) if m.end(1) > m.start(1)]
    return out


def mechanical(sources, seed, taken):
    """Bugs without end: a kind of edit at random, then a place, none twice and none where a bug is by hand."""
    draw, places = random.Random(seed), edits_of(sources)
    number = 0
    while any(places.values()):
        kind = draw.choice(sorted(k for k in places if places[k]))
        path, begin, end, new = places[kind].pop(draw.randrange(len(places[kind])))
        source = sources[path]
        ops = ops_of(sources, path, begin)
        if not ops or (path, source.line(begin)) in taken:
            continue  # nobody calls it, or it is taken
        number += 1
        first = source.text.rfind("\n", 0, begin) + 1
        last = source.text.index("\n", end)
        edit = f"{source.text[first:last].strip()} -> {(source.text[first:begin] + new + source.text[end:last]).strip()}"
        yield Bug(f"m{number}", kind, path, source.text[:begin] + new + source.text[end:], source.line(begin),
                  " ".join(edit.split()), ops, by_hand=False)


# ---- running

# What noticed a bug, by what the tests print: the emulator about a kernel, else the tests about results.
EMULATOR = [
    ("copy", r"asynchronous cop"),
    ("race", r"race:|plain read|kt_load_once"),
    ("unset memory", r"uninitialised"),
    ("barrier", r"barrier"),
    ("collective", r"lanes|shfl_xor"),
    ("alignment", r"misaligned"),
    ("bounds", r"beyond|behind|in front of|may not touch|of an input|touches|no memory is there|stack|overwritten"),
    ("order", r"depends on the order"),
    ("fault", r"divides an integer|reaches code|converts|is shifted"),
]
TESTS = [
    ("compiler", r"does not compile"),
    ("sanitizer", r"runtime error:|AddressSanitizer"),
    ("stray write", r"memory that is no output was changed"),
    ("order", r"two runs differ|gives other bits"),
    ("value", r"tolerance|\bgot\b|differs|expected|not finite"),
    ("driver", r"CUDA_ERROR|the driver"),
]


def noticed_by(output):
    emulator = "\n".join(l for l in output.split("\n") if l.startswith("emu:"))
    for signs, said in ((EMULATOR, emulator), (TESTS, output)):
        for how, sign in signs:
            if re.search(sign, said):
                return how
    return "other"


def run_op(folder, cache, build, op, seed, seconds, first):
    """Runs an op's tests. (how it failed or None, what it printed, seconds)"""
    env = dict(os.environ, KOTARO_OPS=op, KOTARO_SEED=str(seed), KOTARO_QUICK="1", KOTARO_CACHE_DIR=str(cache),
               KOTARO_NVRTC=str(build / "emu"), LD_LIBRARY_PATH=str(build / "emu"), CMOCKA_MESSAGE_OUTPUT="tap",
               TMPDIR=str(folder / "tmp"), LC_ALL="C.UTF-8")
    env.setdefault("KOTARO_EMU_SEED", str(seed))
    if first:
        env["KOTARO_FIRST"] = "1"
    if seed != TRIES[0][1]:
        env.setdefault("KOTARO_EMU_ORDERS", "2")
    if build == SANITIZED:
        env.update(KOTARO_EMU="asan", ASAN_OPTIONS="protect_shadow_gap=0:detect_leaks=0")
    begin = time.monotonic()
    child = subprocess.Popen(["nice", "-n", "10", str(build / "tests/gpu_ops")], cwd=folder, env=env, text=True,
                             errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        return "timeout", output, time.monotonic() - begin
    finally:
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        (folder / "tmp").mkdir()
    spent = time.monotonic() - begin
    if "# SKIP" in output or "no GPU" in output:
        fail(f"the op tests did not run:\n{output[-2000:]}")
    if child.returncode == 0:
        return None, output, spent
    if child.returncode < 0:
        return f"crash ({signal.Signals(-child.returncode).name})", output, spent
    return noticed_by(output), output, spent


def cache_folder(build):
    """What a kernel is compiled to depends on the stand-ins, too: one folder for each of them, of which one is kept."""
    stand_ins = hashlib.sha256(os.environ.get("KOTARO_EMU", "").encode())
    for path in sorted((build / "emu").rglob("*")):
        if path.is_file():
            stand_ins.update(path.read_bytes())
    folder = build / f"mutate-cache-{stand_ins.hexdigest()[:16]}"
    for other in build.glob("mutate-cache-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


class Runner:
    def __init__(self, sources, work, keep, san):
        self.sources, self.work, self.keep = sources, work, keep
        self.tries = TRIES if san else TRIES[:2]
        self.lock = threading.Lock()
        self.passed = set()  # ops that pass under the sanitizers
        self.caches = {build: cache_folder(build) for build, _ in self.tries}
        self.seconds = {}  # by op: of its tests as they are

    def folder(self, name):
        folder = self.work / name
        shutil.copytree(TREE / "ops", folder / "ops")
        (folder / "tmp").mkdir()
        return folder

    def control(self, op):
        """The op's tests without a bug: they must pass."""
        for build, seed in TRIES[:2]:
            self.must_pass(op, build, seed)
        return op

    def must_pass(self, op, build, seed):
        folder = self.folder(f"control-{op}-{build.name}-{seed}")
        how, output, spent = run_op(folder, self.caches[build], build, op, seed, SECONDS, first=False)
        if how:
            fail(f"the tests of '{op}' fail without a bug ({how}, {build.name}, seed {seed}):\n{output[-4000:]}")
        if build != SANITIZED:
            self.seconds[op] = max(spent, self.seconds.get(op, 0))

    def run_ops(self, bug, folder, build, seed):
        for op in sorted(bug.ops, key=lambda op: self.seconds.get(op, 0)):
            with self.lock:
                if build == SANITIZED and op not in self.passed:
                    self.must_pass(op, build, seed)
                    self.passed.add(op)
            limit = min(SECONDS, 60 + (20 if build == SANITIZED else 5) * self.seconds.get(op, SECONDS))
            bug.how, output, _ = run_op(folder, self.caches[build], build, op, seed, limit, first=True)
            if self.keep:
                (self.keep / f"{bug.name}.{op}.{build.name}.{seed}.log").write_text(output)
            if bug.how:
                bug.op = op
                bug.note = {TRIES[0]: "", TRIES[1]: "second seed"}.get((build, seed), "under the sanitizers")
                return True
        return False

    def run(self, bug):
        folder = self.folder(bug.name)
        bug.plant(self.sources, folder)
        begin = time.monotonic()
        for build, seed in self.tries[:2] if bug.miss else self.tries:
            if self.run_ops(bug, folder, build, seed):
                break
        bug.seconds = time.monotonic() - begin
        shutil.rmtree(folder, ignore_errors=True)
        return bug


def say(bug):
    how = f"{bug.how} ({bug.op})" if bug.how else "MISSED"
    print(f"{bug.name:40} {how:28} {bug.seconds:6.1f} s  {bug.path}:{bug.line}", flush=True)


def run_all(runner, by_hand, drawn, harmless, count, jobs):
    """Runs the bugs made by hand and `count` of those that are drawn. What was counted, and what was not."""
    done, left_out, wanted = [], [], count
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(runner.run, bug) for bug in by_hand}
        while wanted > 0 or running:
            while wanted > 0 and len(running) < 2 * jobs:
                bug = next(drawn, None)
                if bug is None:
                    wanted = 0
                    break
                if (bug.path, bug.text) in harmless:
                    bug.note = harmless[bug.path, bug.text]
                    left_out.append(bug)
                    continue
                running.add(pool.submit(runner.run, bug))
                wanted -= 1
            ready, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for bug in (future.result() for future in ready):
                if bug.how == "compiler":
                    if bug.by_hand:
                        fail(f"'{bug.name}' does not compile")
                    left_out.append(bug)
                    wanted += 1
                    continue
                say(bug)
                done.append(bug)
    return done, left_out


# ---- what came of it

def code(text):
    text = text if len(text) <= 150 else text[:147] + "..."
    return "`" + text.replace("|", "\\|") + "`"


def table(bugs):
    lines = ["| bug | kind | where | edit | noticed by | op | s |", "|---|---|---|---|---|---|---|"]
    for bug in bugs:
        how = bug.how or ("missed, as expected" if bug.miss else "**missed**")
        how += f" ({bug.note})" if bug.note else ""
        lines.append(f"| {bug.name} | {bug.kind} | {bug.path}:{bug.line} | {code(bug.edit)} | {how} | {bug.op} | "
                     f"{bug.seconds:.0f} |")
    return "\n".join(lines)


def totals(done, left_out):
    lines = []
    for by_hand, what in ((True, "by hand"), (False, "mechanical")):
        some = [bug for bug in done if bug.by_hand == by_hand]
        if some:
            lines.append(f"{what}: {sum(1 for bug in some if bug.how)} of {len(some)} noticed")
    for bug in done:
        if not bug.how:
            lines.append(f"missed: {bug.name}, {bug.path}:{bug.line}: {bug.edit}" + (f" ({bug.miss})" if bug.miss else ""))
        elif bug.miss:
            lines.append(f"noticed, though not expected: {bug.name}: take its 'miss' away")
    compiler = sum(1 for bug in left_out if bug.how)
    if left_out:
        lines.append(f"not counted: {compiler} that do not compile, {len(left_out) - compiler} that change nothing")
    how = {}
    for bug in done:
        how[bug.how or "missed"] = how.get(bug.how or "missed", 0) + 1
    lines.append("by what: " + ", ".join(f"{key} {how[key]}" for key in sorted(how, key=how.get, reverse=True)))
    return lines


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=66, help="mechanical bugs")
    parser.add_argument("--data", type=Path, default=TREE / "tests/data/mutations.txt", help="the bugs made by hand")
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for what the tests print")
    parser.add_argument("--san", action="store_true", help="try what is missed under the sanitizers, too")
    parser.add_argument("--list", action="store_true", help="print the bugs and run nothing")
    return parser.parse_args()


def main():
    args = parse()
    sources = all_sources()
    by_hand, harmless = read_bugs(sources, args.data)
    taken = {(bug.path, bug.line) for bug in by_hand}
    drawn = mechanical(sources, args.seed, taken)
    count = args.count
    if args.fast:
        by_hand, count = [bug for bug in by_hand if bug.fast], 0
    if args.only:
        names = set(args.only)
        last = max((int(name[1:]) for name in names if re.fullmatch(r"m\d+", name)), default=0)
        known = by_hand + [next(drawn) for _ in range(last)]
        by_hand, count = [bug for bug in known if bug.name in names], 0
        unknown = sorted(names - {bug.name for bug in by_hand})
        if unknown:
            sys.exit(f"mutate.py: no bug is named {', '.join(unknown)}; --list names them")
    some = by_hand + [bug for _, bug in zip(range(2 * count), mechanical(sources, args.seed, taken))]
    if args.list:
        for bug in some:
            print(f"{bug.name} ({bug.kind}) {bug.path}:{bug.line} [{' '.join(bug.ops)}] {bug.edit}")
        return 0
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kotaro-mutate-") as work:
        runner = Runner(sources, Path(work), args.keep, args.san)
        ops = sorted({op for bug in some for op in bug.ops})
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for op in pool.map(runner.control, ops):
                print(f"without a bug: {op} passes in {runner.seconds[op]:.1f} s", flush=True)
        done, left_out = run_all(runner, by_hand, drawn, harmless, count, args.jobs)
    order = {bug.name: i for i, bug in enumerate(by_hand)}
    done.sort(key=lambda bug: order[bug.name] if bug.name in order else len(order) + int(bug.name[1:]))
    lines = totals(done, left_out) + [f"{time.monotonic() - begin:.0f} s, seed {args.seed}"]
    print("\n".join(lines))
    if args.table:
        args.table.write_text(table(done) + "\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    wrong = [bug for bug in done if bug.by_hand and bool(bug.how) == bool(bug.miss)]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
