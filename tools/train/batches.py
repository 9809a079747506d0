"""Training batches, made on CPU worker processes: scenes as drawing arrays, questions and answers as tokens."""

import numpy as np
import torch

import answers
import atlas as art
import model as m
import questions as q
import render
import render_triton
import scenes
from prompt import Prompt

BRANCHES = 3
WIDTH = 80  # tokens of one branch: shared text, question and answer
PER_BRANCH = 26  # answer tokens of a branch on average, at most
KIND_SHARE = np.array([0.30, 0.10, 0.10, 0.13, 0.20, 0.06, 0.03, 0.08])


class Asker:
    """Prompts of every kind and language as padded token rows, the plain pipeline's most often."""

    def __init__(self, prompt):
        self.prompt = prompt
        rows, self.of = [], {}
        for kind in range(8):
            for language in q.LANGUAGES:
                first = len(rows)
                rows += self.variants(kind, language)
                self.of[kind, language] = (first, len(rows))
        self.length = np.array([len(r) for r in rows])
        self.table = np.full((len(rows), self.length.max()), prompt.end, np.int64)
        for i, row in enumerate(rows):
            self.table[i, : len(row)] = row

    def variants(self, kind, language):
        shared = [q.SHARED[p][language] for p in ("full", "simple")]
        if kind == q.OTHER:
            return [self.prompt.branch(s, ask) for ask in q.others(language) for s in shared + [""]]
        plain = [self.prompt.item(kind, language)]
        words = [q.ASK[kind][language]] + q.OTHER_WORDS[kind][language]
        other = [self.prompt.branch(s, ask) for ask in words for s in shared + [""]]
        return plain * max(1, int(2.5 * len(other))) + other

    def pick(self, rng, kind, language, n):
        first, last = self.of[kind, language]
        return rng.integers(first, last, n)


class Maker(torch.utils.data.IterableDataset):
    """Endless batches; the patch count of a batch is 256 or 252 (one compiled kernel each)."""

    def __init__(self, atlas_path, model_path, batch, seed, split="train"):
        self.atlas_path, self.model_path, self.batch, self.seed, self.split = atlas_path, model_path, batch, seed, split

    def __iter__(self):
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        self.prepare()
        while True:
            yield self.make(rng, int(rng.choice([256, 252], p=[0.4, 0.6])))

    def prepare(self):
        prompt = Prompt(self.model_path)
        self.sampler = scenes.Sampler(art.Atlas(self.atlas_path).with_variants(), self.split)
        self.grammar = answers.Grammar()
        self.grammar.p.tokenise(prompt.encode)
        self.asker = Asker(prompt)
        self.end = prompt.end

    def make(self, rng, patches):
        s = self.sampler.sample(rng, self.batch, patches)
        out = {"numbers": torch.from_numpy(render_triton.pack(s))}
        out["cover"] = torch.from_numpy(self.targets(s, patches).astype(np.int16))
        out["cell"] = torch.from_numpy(self.cells(s).astype(np.int16))
        out["shape"] = torch.from_numpy(grid_rows(s["grid"], patches)[1])
        ids, at, label = self.talk(rng, s)
        out.update(ids=torch.from_numpy(ids), at=torch.from_numpy(at), label=torch.from_numpy(label))
        return patches, out

    def classes(self, s):
        """Class of every slot: an object, or the number after the last for something unknown."""
        n_obj = self.sampler.n_objects
        group = s["slot_group"]
        obj = np.take_along_axis(s["obj"], np.clip(group, 0, 2), 1)
        return np.where(group == 3, n_obj, obj)

    def targets(self, s, patches):
        cover = render.cover_numpy(s, patches)
        chosen = np.take_along_axis(self.classes(s), np.clip(cover, 0, None).astype(np.int64), 1)
        return np.where(cover < 0, self.sampler.n_objects + 1, chosen)

    def cells(self, s):
        """Class at the centre of each of the queries' cells (a square grid over the whole picture)."""
        side = int(m.QUERIES ** 0.5)
        square = dict(s)
        square["grid"] = np.full_like(s["grid"], side)
        cover = render.cover_numpy(square, m.QUERIES)
        chosen = np.take_along_axis(self.classes(s), np.clip(cover, 0, None).astype(np.int64), 1)
        return np.where(cover < 0, self.sampler.n_objects + 1, chosen)

    def talk(self, rng, s):
        n = self.batch
        kind = rng.choice(8, n * BRANCHES, p=KIND_SHARE / KIND_SHARE.sum())
        language = rng.integers(0, 2, n * BRANCHES)
        ids = np.full((n * BRANCHES, WIDTH), self.end, np.int64)
        label = np.full((n * BRANCHES, WIDTH), -100, np.int64)
        column = np.arange(WIDTH)
        for k in range(8):
            for code, name in enumerate(q.LANGUAGES):
                rows = np.flatnonzero((kind == k) & (language == code))
                if len(rows) == 0:
                    continue
                part = scenes.take(s, rows // BRANCHES)
                answer, length = self.grammar.p.flatten(self.grammar.answer(part, k, name), WIDTH, self.end)
                which = self.asker.pick(rng, k, name, len(rows))
                start = self.asker.length[which][:, None]
                asked = self.asker.table[which]
                line = np.full((len(rows), WIDTH), self.end, np.int64)
                line[:, : asked.shape[1]] = asked
                shifted = np.take_along_axis(answer, np.clip(column - start, 0, WIDTH - 1), 1)
                line = np.where(column < start, line, shifted)
                ids[rows] = line
                following = np.concatenate([line[:, 1:], np.full((len(rows), 1), self.end)], 1)
                told = (column >= start - 1) & (column < start + length[:, None])
                label[rows] = np.where(told, following, -100)
        # positions of answer tokens, a fixed number of them
        found = np.flatnonzero(label.reshape(-1) >= 0)
        size = n * BRANCHES * PER_BRANCH
        if len(found) > size:
            found = rng.permutation(found)[:size]
        # the rest is filled up with other positions, no position twice
        rest = np.flatnonzero(label.reshape(-1) < 0)[: size - len(found)]
        at = np.concatenate([found, rest])
        wanted = np.full(size, -100, np.int64)
        wanted[: len(found)] = label.reshape(-1)[found]
        return ids.reshape(n, BRANCHES, WIDTH), at, wanted


def grid_rows(grid, patches):
    """Position-table rows [n, patches] and the number of each scene's grid among the known shapes."""
    n = len(grid)
    table = np.zeros((n, patches), np.int64)
    shape = np.zeros(n, np.int64)
    for number, (rows, columns) in enumerate(all_shapes()):
        mine = (grid[:, 0] == rows) & (grid[:, 1] == columns)
        if mine.any():
            table[mine] = m.positions(rows, columns)
            shape[mine] = number
    return table, shape


def all_shapes():
    return sorted({g for grids in scenes.GRIDS.values() for g in grids})


def position_table(patches, device):
    """int [shapes, patches]: the position-table rows of every grid with that patch count (others: zeros)."""
    out = torch.zeros(len(all_shapes()), patches, dtype=torch.long, device=device)
    for number, (rows, columns) in enumerate(all_shapes()):
        if rows * columns == patches:
            out[number] = torch.from_numpy(m.positions(rows, columns)).to(device)
    return out


def key_table(patches, device, dtype):
    """[shapes, patches, width]: the resampler's key positions of every grid with that patch count."""
    out = torch.zeros(len(all_shapes()), patches, m.TEXT["width"], dtype=dtype, device=device)
    for number, (rows, columns) in enumerate(all_shapes()):
        if rows * columns == patches:
            out[number] = m.key_positions(rows, columns).to(device, dtype)
    return out
