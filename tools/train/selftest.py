"""Checks of the tools themselves: python3 selftest.py (numpy and Pillow; more where torch is installed)."""

import os

import numpy as np

import answers
import atlas as art
import evaluate
import questions as q
import render
import scenes
import score


def batch(sampler, n=300, **more):
    return sampler.sample(np.random.default_rng(11), n, **more)


def truth_scores_full(sampler, grammar):
    """The grammar's own answers get every slot; another scene's answers do not."""
    s, reader = batch(sampler), score.Reader()
    for language in q.LANGUAGES:
        right, wrong = score.Tally(), score.Tally()
        for kind in range(7):
            texts = [grammar.p.join(r) for r in grammar.answer(s, kind, language)]
            for i in range(s["n"]):
                truth = evaluate.facts(s, i, grammar)
                known = {"things": truth["things"], "texts": dict(enumerate(truth["texts"][language]))}
                score.score(reader, right, kind, language, texts[i], known)
                score.score(reader, wrong, kind, language, texts[i - 1], known)
        assert right.hits == right.tries, (right.hits, right.tries)
        assert wrong.hits["name"] < 0.1 * wrong.tries["name"] and wrong.hits["colour"] < 0.2 * wrong.tries["colour"]


def captions_are_short(sampler, grammar):
    s = batch(sampler, 2000)
    for language in q.LANGUAGES:
        assert max(len(grammar.p.join(r)) for r in grammar.answer(s, q.CAPTION, language)) <= 140


def pairs_are_kept_apart(atlas):
    table = scenes.left_out_table(len(art.objects.load()))
    for split in ("train", "test"):
        s = batch(scenes.Sampler(atlas, split), 3000)
        two = s["groups"] >= 2
        kept = table[s["obj"][two, 0], s["obj"][two, 1]]
        assert kept.all() if split == "test" else not kept.any()


def things_stay_inside(sampler):
    s = batch(sampler, 2000)
    drawn = s["sprite"] >= 0
    assert (drawn.sum(1)[s["groups"] > 0] == s["total"][s["groups"] > 0]).all()
    assert s["centre"][drawn].min() > 0.05 and s["centre"][drawn].max() < 0.95


def renderers_agree(sampler, atlas):
    import torch

    s = batch(sampler, 6, patches=252)
    s["noise"][:] = 0
    flat = torch.from_numpy(atlas.pixels().reshape(-1))
    x = render.torch_patches(render.torch_inputs(s, "cpu"), flat, 252).float().numpy()
    for i in range(6):
        rows, columns = (int(v) for v in s["grid"][i])
        one = {k: (v[i] if isinstance(v, np.ndarray) else v) for k, v in s.items()}
        picture = render.numpy_picture(one, atlas.pixels(), columns * 14, rows * 14).astype(np.float32)
        same = x[i].reshape(rows, columns, 3, 14, 14).transpose(0, 3, 1, 4, 2).reshape(rows * 14, columns * 14, 3)
        assert np.abs((same + 1) * 127.5 - picture).mean() < 0.6


def quantised_is_near():
    import torch

    import export

    book = export.dynamic_map()
    assert len(book) == 256 and abs(float(book[0]) + 0.99296874) < 1e-6 and float(book[255]) == 1.0 and float(book[127]) == 0.0
    weight = torch.randn(96, 288, generator=torch.Generator().manual_seed(1)) * 0.05
    part = export.quantise(weight)
    error = (export.dequantise(part).float() - weight).norm() / weight.norm()
    assert part[""].shape == (96 * 288 // 2, 1) and part[""].dtype == torch.uint8 and error < 0.1


def main():
    atlas = art.for_tests(os.path.join(evaluate.HERE, "data"))
    sampler, grammar = scenes.Sampler(atlas, "test"), answers.Grammar()
    truth_scores_full(sampler, grammar)
    captions_are_short(sampler, grammar)
    pairs_are_kept_apart(atlas)
    things_stay_inside(sampler)
    try:
        import torch  # noqa: F401
    except ImportError:
        print("ok (without torch: renderers and quantisation not compared)")
        return
    renderers_agree(sampler, atlas)
    quantised_is_near()
    print("ok")


if __name__ == "__main__":
    main()
