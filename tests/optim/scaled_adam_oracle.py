"""ScaledAdam written down formula by formula, one parameter at a time: slow and plain."""

import math

import torch


class Oracle:
    """Arguments as ScaledAdam's for one group; `step` takes gradients, None where there is none."""

    def __init__(self, params, lr, clipping_scale=None, period=100, clip_main_update=True):
        self.params = [p.detach().clone() for p in params]
        self.lr, self.clipping_scale = lr, clipping_scale
        self.period, self.clip_main = period, clip_main_update
        self.k, self.norms, self.threshold, self.num_clipped = 0, [0.0] * period, None, 0
        self.delta = [torch.zeros_like(p) for p in params]
        self.v = [torch.zeros_like(p) for p in params]
        self.rms = [p.detach().square().mean().sqrt() for p in params]
        self.u = [0.0] * len(self.params)
        self.big_g = [[0.0] * 4 for _ in self.params]

    def clip(self, grads):
        squares = [
            (g * (rms if g.numel() > 1 else 1.0)).square().sum()
            for g, rms in zip(grads, self.rms, strict=True)
        ]
        norm = math.sqrt(sum(map(float, squares)))
        if self.clipping_scale is None or self.k == 0:
            return 1.0
        # Norms are kept in float32.
        self.norms[self.k % self.period] = torch.tensor(norm, dtype=torch.float32).item()
        if self.k < self.period:
            return 1.0
        if self.k % self.period == 0:
            median = sorted(self.norms)[self.period // 4 * 2]
            self.threshold, self.num_clipped = self.clipping_scale * median, 0
        factor = min(1.0, self.threshold / norm)
        self.num_clipped += factor < 1.0
        return factor

    def step(self, grads):
        grads = [
            torch.zeros_like(p) if g is None else g for p, g in zip(self.params, grads, strict=True)
        ]
        k, lr, beta1, beta2, eps = self.k, self.lr, 0.9, 0.98, 1e-8
        clip = self.clip(grads)
        main = clip if self.clip_main else 1.0
        for i, (p, raw) in enumerate(zip(self.params, grads, strict=True)):
            g = main * raw
            self.delta[i] = beta1 * self.delta[i]
            self.v[i] = beta2 * self.v[i] + (1 - beta2) * g**2
            c2 = 1 - beta2 ** (k + 1)
            if p.numel() == 1:
                self.delta[i] -= 0.1 * lr * (1 - beta1) * g / ((self.v[i] / c2).sqrt() + eps)
                self.params[i] = p.clamp(-10, 10) + self.delta[i]
                continue
            self.big_g[i][k % 4] = float((p * clip * raw).sum())
            if k % 4 == 3:
                self.rms[i] = p.square().mean().sqrt()
                b = beta2**4
                self.u[i] = b * self.u[i] + (1 - b) * sum(x**2 for x in self.big_g[i]) / 4
                c = 1 - b ** ((k + 1) / 4)
                step = -0.1 * lr * math.sqrt(c) * sum(self.big_g[i]) / (math.sqrt(self.u[i]) + eps)
                step = 0.0 if self.rms[i] < 1e-5 else step
                step = -0.1 * lr * 4 if self.rms[i] > 3.0 else step
                self.delta[i] += (1 - beta1) * p * step
            v = self.v[i] / c2 if c2 < 0.99 else self.v[i]
            self.delta[i] -= lr * (1 - beta1) * max(self.rms[i], 1e-5) * g / (v.sqrt() + eps)
            self.params[i] = p + self.delta[i]
        self.k += 1
