"""Scores weights on freshly drawn scenes with PyTorch alone (used while training; evaluate.py tests the product)."""

import numpy as np
import torch

import answers
import atlas as art
import batches
import model as m
import questions as q
import render
import scenes
import score

MIXED = [0, 0, 0.3, 0.12, 0.08, 0.3, 0.2]


def truth_of(grammar, s, i, language):
    groups = int(s["groups"][i])
    things = [(int(s["obj"][i, g]), int(s["count"][i, g]), scenes.PLACES_EN[s["place"][i, g]], scenes.PLACES_JA[s["place"][i, g]])
              for g in range(groups)]
    return {"things": things}


def run_set(net, prompt, pixels, sampler, grammar, reader, n, kinds, seed, blank=False, penalty=1.0, ask=range(7)):
    device = pixels.device
    tally = {language: score.Tally() for language in q.LANGUAGES}
    rng = np.random.default_rng(seed)
    for patches in (256, 252, 260):
        part = n // 3
        s = sampler.sample(rng, part, patches, kinds=kinds)
        d = render.torch_inputs(s, device)
        with torch.no_grad():
            x = render.torch_patches(d, pixels, patches)
            if blank:
                x = torch.zeros_like(x)
            table, shape = (torch.from_numpy(a).to(device) for a in batches.grid_rows(s["grid"], patches))
            dtype = net.w["resampler.proj"].dtype
            seen = net.vision(x.to(dtype), table)
            rows = net.rows(seen, batches.key_table(patches, device, dtype)[shape])
        past = net.prefix(rows, (prompt.before, prompt.after))
        for kind in ask:
            for language in q.LANGUAGES:
                told, _ = net.generate(past, prompt.item(kind, language), prompt.stop, 56, penalty)
                wanted = grammar.answer(s, kind, language)
                for i in range(part):
                    truth = truth_of(grammar, s, i, language)
                    truth["texts"] = {kind: grammar.p.join(wanted[i])}
                    score.score(reader, tally[language], kind, language, prompt.decode(told[i]), truth)
    return tally


def check(view, prompt, atlas_path, emojione_path, device, n=300, say=print, seed=77, quick=False):
    net = m.Model({k: v.detach() for k, v in view.items()})
    base = art.Atlas(atlas_path)
    grammar, reader = answers.Grammar(), score.Reader()
    pixels = torch.from_numpy(base.pixels().reshape(-1)).to(device)
    colour = [art.TWEMOJI, art.NOTO]
    mild = scenes.Sampler(base, "test", colour, restyle=0.25)
    sets = [("unseen", mild, pixels, MIXED, {}), ("penalty 1.2", mild, pixels, MIXED, {"penalty": 1.2})]
    sets.append(("nothing known", mild, pixels, [0.3, 0.7, 0, 0, 0, 0, 0], {"ask": [q.SUBJECT, q.THING, q.COMPOSITION]}))
    sets.append(("unknown only", mild, pixels, [0, 1, 0, 0, 0, 0, 0], {"ask": [q.SUBJECT, q.THING]}))
    other = art.Atlas(emojione_path)
    one_pixels = torch.from_numpy(other.pixels().reshape(-1)).to(device)
    one = scenes.Sampler(other, "train", [art.EMOJIONE], restyle=0.0)
    sets.append(("other style, one", one, one_pixels, [0, 0, 1, 0, 0, 0, 0], {"ask": [q.SUBJECT, q.THING]}))
    if not quick:
        sets.append(("other style, mixed", one, one_pixels, MIXED, {}))
        sets.append(("blind", mild, pixels, MIXED, {"blank": True}))
    for name, sampler, pix, kinds, more in sets:
        tally = run_set(net, prompt, pix, sampler, grammar, reader, n, kinds, seed, **more)
        for language in q.LANGUAGES:
            t = tally[language]
            say("%-18s %s  %s" % (name, language, "  ".join("%s %.1f" % (k, 100 * t.hits[k] / t.tries[k]) for k in t.tries)))
