"""MACE: Mass Concept Erasure in Diffusion Models (Lu et al., CVPR 2024).

(a) Closed-form refinement (their eq. 4): the keys and values of the words around the target, end and padding among
    them, become those of the same words around the anchor,
    W' = argmin sum |W e_f - W_0 e_g|^2 + lambda_1 sum |W e_p - W_0 e_p|^2.
(b) One LoRA a target on the refined keys and values. It is trained on noised pictures of the target at timesteps from
    the focal distribution (their concept-focal importance sampling, xi(t) ~ s(g (t - t1)) - s(g (t - t2))), until the
    attention to the target's own words is gone where the target is seen: sum_i sum_l |A_l^i * M|_F^2.
(c) Closed-form fusion of the LoRAs (their eq. 8),
    W* = argmin sum_i sum_f |W e_f - (W' + B_i A_i) e_f|^2 + lambda_2 sum |W e_p - W_0 e_p|^2,
    over the target's words and what follows them.

Unlike the authors' program: the norm is squared and A averaged over heads (theirs: neither, and gradients are clipped),
and end and padding do not count as the target's words; t is focal for every concept (theirs: uniform for nudity); M
comes from the unedited model's own cross-attention (as DAAM, Tang et al., ACL 2023), not from a segmenter; (c) leaves
out what stands before the target; a small ridge holds W_0 (theirs, for objects alone, a large one, in (c) W');
sentences and e_p are of the concept, not templates and captions.
"""

import time
from itertools import cycle, islice
from math import isqrt

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate
from tqdm import trange

from eraseflow import finite, own_pictures
from eraseflow.cross_attention import KEYS_VALUES, attention_maps, closed_form, projections
from eraseflow.edits import Edit, add_lora
from eraseflow.params import Block, Concept, Count, Guidance, LearningRate, Rank, Scale, Steps
from eraseflow.sampling import embed

FOCUS = (200, 400, 0.05)  # the paper's t1, t2 and g (for 1,000 timesteps)
MASK_PASSES = 8  # of the unedited U-Net, whose maps make a mask


class Settings(Block):
    preserve_scale: Scale
    fuse_scale: Scale
    lora_rank: Rank
    iterations: Count
    batch_size: Count
    learning_rate: LearningRate
    pictures: Count
    mask_threshold: float = Field(ge=0, lt=1)
    num_steps: Steps
    guidance_scale: Guidance


def phrase_at(tokenizer, sentence: str, phrase: str) -> tuple[int, int]:
    """Where a phrase's tokens begin and end in a sentence's. Raises: SystemExit with one line where they are not."""
    ids, words = tokenizer(sentence).input_ids, tokenizer(phrase, add_special_tokens=False).input_ids
    starts = [at for at in range(len(ids)) if ids[at : at + len(words)] == words]
    if not starts:
        raise SystemExit(
            f"mace: the tokens of {phrase!r} are not in {sentence!r}; contexts must set {{}} off by spaces"
        )
    return starts[0], starts[0] + len(words)


def cooccurring(
    tokenizer, states: Tensor, sentences: tuple[str, str], phrases: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """States (n, width) of what follows the target in its sentence, and of the same around the anchor.

    states (2, tokens, width) of both sentences. What stands before a phrase does not know of it.
    """
    start, end = phrase_at(tokenizer, sentences[0], phrases[0])
    anchor_end = start + len(tokenizer(phrases[1], add_special_tokens=False).input_ids)
    rest = torch.arange(states.shape[1] - max(end, anchor_end))
    return states[0, end + rest], states[1, anchor_end + rest]


def from_target_on(pipeline, word: str, sentences: list[str]) -> Tensor:
    """States (n, width) of the target and of what follows it; what stands before it is in every prompt alike."""
    starts = [phrase_at(pipeline.tokenizer, sentence, word)[0] for sentence in sentences]
    return torch.cat([states[start:] for states, start in zip(embed(pipeline, sentences), starts, strict=True)])


def focal(timesteps: int) -> Tensor:
    """The focal distribution (timesteps,) of the paper, normalised."""
    t1, t2, sharpness = FOCUS
    t = torch.arange(timesteps, dtype=torch.float64)
    density = torch.sigmoid(sharpness * (t - t1)) - torch.sigmoid(sharpness * (t - t2))
    return density / density.sum()


def attention_loss(maps: list[Tensor], words: Tensor, masks: Tensor) -> Tensor:
    """sum_i sum_l |A_l^i * M|_F^2, a mean over pictures.

    maps: (n, heads, positions, tokens) a layer. words (n, tokens): 1 at the target's own. masks (n, side, side): 1
    where it is seen; a coarser layer's position is inside if any part of it is.
    """
    losses = []
    for found in maps:
        inside = adaptive_max_pool2d(masks[:, None], isqrt(found.shape[2])).flatten(1)
        seen = found.float().mean(1) * inside[:, :, None] * words[:, None]
        losses.append(seen.square().sum((1, 2)).mean())
    return torch.stack(losses).sum()


class Target:
    """One target of the concept: its sentences, its pictures by the unedited model, and where it is seen in them."""

    def __init__(self, pipeline, word: str, sentences: list[str], settings: Settings, rng: torch.Generator) -> None:
        self.scheduler, self.rng, side = pipeline.scheduler, rng, pipeline.unet.config.sample_size
        states = embed(pipeline, sentences)
        words = torch.zeros(states.shape[:2], device=states.device)
        for row, sentence in enumerate(sentences):
            words[row, slice(*phrase_at(pipeline.tokenizer, sentence, word))] = 1
        rows = list(islice(cycle(range(len(sentences))), settings.pictures))
        self.states, self.words = states[rows], words[rows]
        seeds = torch.randint(2**62, (settings.pictures,), generator=rng).tolist()
        empty = embed(pipeline, [""])
        steps, guidance = settings.num_steps, settings.guidance_scale
        self.clean = own_pictures.draw(pipeline, self.states, seeds, steps, guidance, empty)
        self.masks = self._seen(pipeline.unet, side, settings.mask_threshold)

    @torch.no_grad()
    def _seen(self, unet, side: int, threshold: float) -> Tensor:
        heat = torch.zeros(len(self.clean), 1, side, side, device=self.clean.device)
        for rows in torch.arange(len(self.clean)).split(own_pictures.AT_ONCE):
            for _ in range(MASK_PASSES):
                for found in self.maps(unet, rows):
                    at = (found.float().mean(1) * self.words[rows, None]).sum(-1)
                    square = at.unflatten(1, (isqrt(at.shape[1]), -1))[:, None]
                    heat[rows] += interpolate(square, side, mode="bilinear")
        heat = heat.squeeze(1)
        return (heat >= threshold * heat.amax((1, 2), keepdim=True)).float()

    def maps(self, unet, rows: Tensor) -> list[Tensor]:
        """The cross-attention's maps at freshly noised pictures, each at its own timestep."""
        clean = self.clean[rows]
        noise = torch.randn(clean.shape, generator=self.rng).to(clean)
        steps = self.scheduler.config.num_train_timesteps
        t = torch.multinomial(focal(steps), len(rows), replacement=True, generator=self.rng).to(clean.device)
        noisy = self.scheduler.add_noise(clean, noise, t).to(self.states.dtype)
        with attention_maps(unet) as maps:
            unet(noisy, t, self.states[rows])
        return maps

    def loss(self, unet, batch_size: int) -> Tensor:
        rows = torch.randint(len(self.clean), (batch_size,), generator=self.rng)
        return attention_loss(self.maps(unet, rows), self.words[rows], self.masks[rows])


def erase(pipeline, concept: Concept, settings: Settings, seed: int) -> Edit:
    """Refine, train a LoRA a target, fuse; the edit holds the keys' and values' weights. history: loss, seconds."""
    started = time.perf_counter()
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the LoRAs' starts
    unet, tokenizer = pipeline.unet, pipeline.tokenizer
    anchors = {concept.target: concept.anchor} | concept.also
    size = len(concept.contexts)
    pairs = {word: concept.pairs[at * size : (at + 1) * size] for at, word in enumerate(anchors)}
    targets = [
        Target(pipeline, word, [sentence for sentence, _ in of_word], settings, rng) for word, of_word in pairs.items()
    ]

    precision = pipeline.text_encoder.dtype
    pipeline.text_encoder.float()  # the systems are nearly singular: they would be solved for the states' rounding
    around = [
        cooccurring(tokenizer, embed(pipeline, pair), pair, (word, anchors[word]))
        for word, of_word in pairs.items()
        for pair in of_word
    ]
    edited, wanted = (torch.cat(side) for side in zip(*around, strict=True))
    own = [from_target_on(pipeline, word, [sentence for sentence, _ in pairs[word]]) for word in pairs]
    preserved = embed(pipeline, ["", *concept.preserve]).flatten(0, 1)
    pipeline.text_encoder.to(precision)

    originals = {name: unet.get_parameter(name).detach().double() for name in projections(unet)}
    refined = {}
    for name, weight in originals.items():
        outputs = wanted.double() @ weight.T
        refined[name] = closed_form(weight, edited, outputs, preserved, settings.preserve_scale, f"mace: unet.{name}")
        unet.get_parameter(name).data.copy_(refined[name])

    history: list[dict] = []
    deltas = []
    for word, target in zip(pairs, targets, strict=True):
        trained = add_lora(unet, settings.lora_rank, list(KEYS_VALUES))
        optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate)
        for _ in trange(settings.iterations, desc="mace", unit="step"):
            loss = target.loss(unet, settings.batch_size)
            optimiser.zero_grad()
            loss.backward()
            finite.step(f"mace: step {len(history)}", optimiser)
            row = {"step": len(history), "loss": loss.item()}
            finite.numbers(f"mace: step {row['step']}", row)
            finite.check(f"mace: after step {row['step']}", ((f"the LoRA of {word}", weight) for weight in trained))
            history.append(row | {"seconds": time.perf_counter() - started})
        layers = {name: unet.get_submodule(name.removesuffix(".weight")) for name in originals}
        deltas.append({name: layer.get_delta_weight("default").detach() for name, layer in layers.items()})
        unet.unload_lora()

    fused = {}
    for name, weight in originals.items():
        outputs = [states.double() @ (refined[name] + delta[name]).T for states, delta in zip(own, deltas, strict=True)]
        system = torch.cat(own), torch.cat(outputs), preserved, settings.fuse_scale
        fused[name] = closed_form(weight, *system, f"mace: unet.{name}")
        unet.get_parameter(name).data.copy_(fused[name])
    return Edit("weights", {f"unet.{name}": weight.float() for name, weight in fused.items()}, history)
