"""Trains kotaro-tiny by the clock.

python3 train.py --atlas atlas.npz --model models/kotaro-tiny --out DIR --seconds 500 [--muon] [--resume FILES]
torchrun --nproc-per-node 2 train.py ...            the same on two GPUs, gradients averaged

Scenes are drawn on CPU workers, rendered on the GPU. Writes weights-0.npy, weights-1.npy (f32 master) and log.txt.
"""

import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

import atlas as art
import batches
import gpu_check
import model as m
import render_triton
from prompt import Prompt


class Optimiser:
    """AdamW on the flat vector; with muon, the matrices between layers move by orthogonalised momentum instead."""

    def __init__(self, weights, muon, decay=0.02):
        self.w, self.decay = weights, decay
        device = weights.master.device
        self.mean = torch.zeros_like(weights.master)
        self.square = torch.zeros_like(weights.master)
        self.decayed = torch.zeros_like(weights.master)
        self.steps = 0
        self.by_shape = {}
        for name, (start, end) in weights.span.items():
            shape = tuple(weights.view[name].shape)
            if len(shape) == 2 and "position" not in name:
                self.decayed[start:end] = 1
            inner = len(shape) == 2 and not any(k in name for k in ("position", "embed", "lm_head", "query"))
            if muon and inner:
                if name == "resampler.attn.in_proj_weight":
                    third = (end - start) // 3
                    for i in range(3):
                        self.by_shape.setdefault((256, 256), []).append((start + i * third, start + (i + 1) * third))
                else:
                    self.by_shape.setdefault(shape, []).append((start, end))
        self.adam = torch.ones(len(weights.master), dtype=torch.bool, device=device)
        for spans in self.by_shape.values():
            for start, end in spans:
                self.adam[start:end] = False

    @torch.no_grad()
    def step(self, grad, rate, muon_rate):
        self.steps += 1
        norm = grad.norm()
        grad = grad * (1.0 / norm.clamp(min=1.0))
        master = self.w.master
        b1, b2 = 0.9, 0.98
        self.square.lerp_(grad * grad, 1 - b2)
        self.mean.lerp_(grad, 1 - b1)
        update = (self.mean / (1 - b1 ** self.steps)) / ((self.square / (1 - b2 ** self.steps)).sqrt() + 1e-8)
        update *= rate
        for shape, spans in self.by_shape.items():
            look = torch.stack([(grad[a:b] * (1 - b1) + self.mean[a:b] * b1).view(shape) for a, b in spans])
            turned = orthogonal(look) * (0.2 * math.sqrt(max(shape)) * muon_rate)
            for (a, b), u in zip(spans, turned):
                update[a:b] = u.flatten()
        master.sub_(update)
        master.addcmul_(master, self.decayed, value=-self.decay * rate)
        return norm


def orthogonal(x):
    """Five Newton-Schulz steps towards the nearest orthogonal matrices of a batch (Jordan et al., Muon, 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    y = x.to(torch.bfloat16)
    tall = y.shape[1] > y.shape[2]
    if tall:
        y = y.mT
    y = y / (y.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return (y.mT if tall else y).float()


class Look(torch.autograd.Function):
    """table[ids] whose gradient is a matrix product: many equal ids make the usual scatter very slow."""

    @staticmethod
    def forward(ctx, table, ids):
        ctx.save_for_backward(ids)
        ctx.size = table.shape[0]
        return table[ids]

    @staticmethod
    def backward(ctx, grad):
        (ids,) = ctx.saved_tensors
        ids, grad = ids.flatten(), grad.reshape(-1, grad.shape[-1])
        hot = torch.zeros(len(ids), ctx.size, dtype=grad.dtype, device=grad.device)
        hot.scatter_(1, ids[:, None], 1.0)
        return hot.T @ grad, None


class Pick(torch.autograd.Function):
    """rows[at] where no row is picked twice."""

    @staticmethod
    def forward(ctx, rows, at):
        ctx.save_for_backward(at)
        ctx.size = rows.shape[0]
        return rows[at]

    @staticmethod
    def backward(ctx, grad):
        (at,) = ctx.saved_tensors
        out = torch.zeros(ctx.size, grad.shape[-1], dtype=grad.dtype, device=grad.device)
        out[at] = grad
        return out, None


class Trainer:
    def __init__(self, args, device, rank):
        self.args, self.device, self.rank = args, device, rank
        self.prompt = Prompt(args.model)
        self.weights = m.Weights(device, seed=args.seed)
        if args.resume:
            flat = np.concatenate([np.load(p) for p in args.resume])
            self.weights.master.copy_(torch.from_numpy(flat).to(device))
            self.weights.refresh(False)
        self.net = m.Model(self.weights.view, compile=args.compile)
        base = art.Atlas(args.atlas).with_variants()
        self.pixels = torch.from_numpy(base.pixels().reshape(-1)).to(device)
        self.loss = torch.compile(losses, dynamic=False) if args.compile else losses
        n_class = int(base.obj.max()) + 3
        self.aux = torch.nn.ModuleList([torch.nn.Linear(m.VISION["width"], n_class), torch.nn.Linear(m.TEXT["width"], n_class)]).to(device)
        self.aux_opt = torch.optim.AdamW(self.aux.parameters(), lr=1e-3, weight_decay=0.01)
        self.class_weight = torch.ones(n_class, device=device)
        self.class_weight[-1] = 0.08
        self.opt = Optimiser(self.weights, args.muon)
        self.before, self.after = (torch.tensor(p, device=device) for p in (self.prompt.before, self.prompt.after))
        self.table = {p: batches.position_table(p, device) for p in (252, 256)}
        self.keys = {p: batches.key_table(p, device, torch.bfloat16) for p in (252, 256)}
        length = self.prompt.header
        total = length + batches.BRANCHES * batches.WIDTH
        self.padded = (total + 7) // 8 * 8
        part = torch.cat([torch.zeros(length), torch.arange(batches.BRANCHES).repeat_interleave(batches.WIDTH) + 1,
                          torch.full((self.padded - total,), 99.0)]).to(device)
        order = torch.arange(self.padded, device=device)
        self.mask = (order[:, None] >= order[None, :]) & ((part[None, :] == 0) | (part[None, :] == part[:, None]))
        where = torch.cat([torch.arange(length)] + [torch.arange(batches.WIDTH) + length] * batches.BRANCHES
                          + [torch.zeros(self.padded - total, dtype=torch.long)])
        cos, sin = m.rope(length + batches.WIDTH)
        self.cos, self.sin = cos[where].to(device), sin[where].to(device)

    def forward(self, patches, d, penalty):
        w = self.weights.view
        with torch.no_grad():
            x = self.paint(d["numbers"], patches)
        grids = w["vpm.embeddings.position_embedding.weight"][self.table[patches]]
        hot = F.one_hot(d["shape"], len(grids)).to(x.dtype)
        place = (hot @ grids.flatten(1)).view(len(x), patches, -1)
        x = F.linear(x, w["vpm.embeddings.patch_embedding.weight"].flatten(1), w["vpm.embeddings.patch_embedding.bias"])
        seen = self.net.layers(x + place)
        rows = self.net.rows(seen, self.keys[patches][d["shape"]])
        n = len(rows)
        table = w["llm.model.embed_tokens.weight"]
        put = lambda ids: table[ids][None].expand(n, -1, -1)
        branch = Look.apply(table, d["ids"].view(n, -1))
        parts = [put(self.before), rows, put(self.after), branch]
        tail = self.padded - self.prompt.header - branch.shape[1]
        if tail:
            parts.append(branch[:, :1].expand(-1, tail, -1) * 0)
        hidden, _ = self.net.decoder(torch.cat(parts, 1), self.cos, self.sin, self.mask)
        hidden = hidden[:, self.prompt.header : self.prompt.header + branch.shape[1]].reshape(-1, hidden.shape[-1])
        logits = self.net.logits(Pick.apply(hidden, d["at"]))
        if penalty:
            logits = self.penalise(logits, d)
        return self.loss(logits, d["label"], seen, rows, d["cover"].long(), d["cell"].long(), self.aux[0].weight,
                         self.aux[0].bias, self.aux[1].weight, self.aux[1].bias, self.class_weight)

    def paint(self, numbers, patches):
        if self.device.type == "cpu" and "TRITON_INTERPRET" not in os.environ:  # a dry run without pictures
            return torch.randn(len(numbers), patches, 588, dtype=torch.bfloat16)
        return render_triton.paint(numbers, self.pixels, patches, int(torch.randint(1 << 30, (1,))))

    def penalise(self, logits, d):
        """What a repetition penalty of 1.2 does to tokens already told; answers shall survive it."""
        lines = d["ids"].view(-1, batches.WIDTH)
        line, place = d["at"] // batches.WIDTH, d["at"] % batches.WIDTH
        column = torch.arange(batches.WIDTH, device=self.device)
        # an answer starts behind the last newline of "assistant\n"
        start = ((lines == self.newline) * column).amax(1)
        told = (column > start[line][:, None]) & (column <= place[:, None])
        index = torch.where(told, lines[line], logits.shape[1])
        seen = torch.zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.bool, device=self.device)
        seen = seen.scatter(1, index, True)[:, :-1]
        return torch.where(seen, torch.where(logits > 0, logits / 1.2, logits * 1.2), logits)

    def step(self, patches, d, rate, quantise, penalty, world):
        self.weights.grad.zero_()
        text, aux1, aux2 = self.forward(patches, d, penalty)
        (text + self.args.aux * (aux1 + aux2)).backward()
        grad = self.weights.grad.float()
        if world > 1:
            torch.distributed.all_reduce(grad)
            grad /= world
            for p in self.aux.parameters():
                torch.distributed.all_reduce(p.grad)
                p.grad /= world
        norm = self.opt.step(grad, rate * self.args.rate, rate * self.args.muon_rate)
        for group in self.aux_opt.param_groups:
            group["lr"] = rate * 1e-3
        self.aux_opt.step()
        self.aux_opt.zero_grad(set_to_none=True)
        self.weights.refresh(quantise)
        return torch.stack([text.detach(), aux1.detach(), aux2.detach(), norm])


def losses(logits, label, seen, rows, cover, cell, w0, b0, w1, b1, class_weight):
    text = F.cross_entropy(logits.float(), label, ignore_index=-100)
    dtype = seen.dtype
    a = F.linear(seen, w0.to(dtype), b0.to(dtype)).flatten(0, 1).float()
    b = F.linear(rows, w1.to(dtype), b1.to(dtype)).flatten(0, 1).float()
    return (text, F.cross_entropy(a, cover.flatten(), weight=class_weight),
            F.cross_entropy(b, cell.flatten(), weight=class_weight))


def schedule(done):
    """Share of the full rate at a share of the time: cosine to 1 %."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def run(args):
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", args.gpu)) if args.device == "cuda" else 0)
    if args.device == "cpu":
        device = torch.device("cpu")
    else:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
    began = time.time()
    torch.manual_seed(args.seed)
    if args.cache and os.path.exists(args.cache):
        with open(args.cache, "rb") as handle:
            torch.compiler.load_cache_artifacts(handle.read())
    if world > 1:
        torch.distributed.init_process_group("nccl")
    maker = batches.Maker(args.atlas, args.model, args.batch, args.seed * 1000 + rank + args.gpu * 17)
    loader = iter(torch.utils.data.DataLoader(maker, batch_size=None, num_workers=args.workers, prefetch_factor=3 if args.workers else None,
                                              pin_memory=args.device == "cuda"))
    trainer = Trainer(args, device, rank)
    trainer.newline = trainer.prompt.encode("\n")[0]
    log = open(os.path.join(args.out, "log%d.txt" % args.gpu), "a") if rank == 0 else None
    say = lambda *a: (print(*a, flush=True), print(*a, file=log, flush=True)) if rank == 0 else None
    say("setup %.1f s" % (time.time() - began), "weights", len(trainer.weights.master))
    window, step, scenes_seen, last = [], 0, 0, time.time()
    clock = torch.zeros(1, device=device)
    marks = time.time()
    while True:
        patches, d = next(loader)
        d = {k: v.to(device, non_blocking=True) for k, v in d.items()}
        if world > 1 and step % 20 == 0:  # every rank goes by the clock of the first
            clock.fill_(time.time() - began)
            torch.distributed.broadcast(clock, 0)
        if step % 20 == 0:
            now = float(clock) if world > 1 else time.time() - began
            if step <= 20:
                start = now  # compiling is over by then: the schedule begins
            done = (now - start) / (args.seconds - start)
        if done >= 1:
            break
        rate = schedule(done) * min(1.0, (step + 1) / 200)
        quantise, penalty = done > args.quantise_from, done > 0.4 and step % 3 == 0
        value = trainer.step(patches, d, rate, quantise, penalty, world)
        window.append(value)
        step += 1
        scenes_seen += args.batch * world
        if step in (3, 10, 30) or step % args.every == 0:
            mean = torch.stack(window[-args.every :]).mean(0).tolist()
            pace = args.batch * world * min(step, args.every) / max(1e-6, time.time() - last) if step % args.every == 0 else 0
            say("%6.1fs step %d scenes %d rate %.4f text %.4f patch %.4f cell %.4f norm %.2f pace %.0f/s" % (
                time.time() - began, step, scenes_seen, rate, *mean, pace))
            window, last = window[-args.every :], time.time() if step % args.every == 0 else last
            if not math.isfinite(mean[0]):
                break
    say("trained %.1f s, %d steps, %d scenes" % (time.time() - began, step, scenes_seen))
    if rank == 0:
        if args.compile and args.save_cache:
            kept = torch.compiler.save_cache_artifacts()
            if kept:
                with open(os.path.join(args.out, "cache%d.bin" % args.gpu), "wb") as handle:
                    handle.write(kept[0])
        flat = trainer.weights.master.float().cpu().numpy()
        parts = 3
        for i, part in enumerate(np.array_split(flat, parts)):
            np.save(os.path.join(args.out, "weights%d-%d.npy" % (args.gpu, i)), part)
        with open(os.path.join(args.out, "run%d.json" % args.gpu), "w") as handle:
            json.dump({"seconds": time.time() - began, "steps": step, "scenes": scenes_seen, "args": vars(args),
                       "world": world, "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu"}, handle)
        if args.check:
            trainer.weights.refresh(True)
            gpu_check.check(trainer.weights.view, trainer.prompt, args.atlas, args.check, device, args.check_n, say, quick=args.quick)
            say("checked %.1f s" % (time.time() - began))
    if world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    os._exit(0)  # the loader's workers do not wait for anything


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--atlas", required=True)
    parser.add_argument("--model", default="models/kotaro-tiny")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--muon-rate", type=float, default=4e-3)
    parser.add_argument("--muon", action="store_true")
    parser.add_argument("--aux", type=float, default=0.5)
    parser.add_argument("--quantise-from", type=float, default=0.75)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--resume", nargs="*")
    parser.add_argument("--check", help="atlas of the style left out: scores are printed at the end")
    parser.add_argument("--check-n", type=int, default=300)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cache", help="compiled kernels of an earlier run")
    parser.add_argument("--save-cache", action="store_true")
    run(parser.parse_args())
