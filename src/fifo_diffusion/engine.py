"""FIFO-Diffusion (Kim et al. 2024, arXiv:2405.11473): an endless video from a model that knows a short one.

A queue of latent frames lies in order, each one level noisier than the one before it.  Every iteration
denoises all of them by one level, takes the clean frame off the front and puts pure noise at the
back.  The network only ever sees a window of f neighbouring frames; `Plan` says which.  All windows
read the queue as it was before the iteration, so their calls are independent.

Letters: B streams, C latent channels, L places in the queue, k frames that leave together, K levels, H W.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput, NotFinite
from fifo_diffusion.noise import draw
from fifo_diffusion.protocols import Call, Conditioner, Executor, Noise
from fifo_diffusion.schedule import NoiseSchedule
from fifo_diffusion.windows import Plan, Window

Solver = Literal["ddim", "2m"]


@dataclass(frozen=True, eq=False)
class State:
    """All that changes while a stream runs.  Save it and the stream goes on bit for bit.

    Place p of the queue holds frame number  iteration k - context + p;  frame 0 is the first anyone sees.
    """

    iteration: int  # frames iteration k .. iteration k + k - 1 come off next; below 0 is the run-in
    queue: Tensor  # (B, C, L, H, W)
    past: Tensor | None = None  # (B, C, L, H, W), the x0 each frame was last predicted to be; only for "2m"
    ramp: int = 0  # above 0 during a cold start: no frame is below this level yet, unless it never will be
    given: Tensor | None = None  # (B, C, f, H, W), the clean frames -f .. -1 of a clip, up to iteration 0
    seen: Tensor | None = None  # (B, C, m, H, W), the m latents that came off last, for a decoder that remembers them

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file; `from_tensors` gives the same state back."""
        out = {"queue": self.queue.contiguous(), "position": torch.tensor([self.iteration, self.ramp])}
        rare = {"past": self.past, "given": self.given, "seen": self.seen}
        return out | {name: value.contiguous() for name, value in rare.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "State":
        """Raises BadInput if these are not the tensors of a state."""
        if not {"queue", "position"} <= tensors.keys():
            raise BadInput(f"a saved state holds queue and position; this one holds {sorted(tensors)}")
        iteration, ramp = (int(i) for i in tensors["position"])
        return cls(iteration, tensors["queue"], tensors.get("past"), ramp, tensors.get("given"), tensors.get("seen"))


Look = Callable[[State, Sequence[Tensor]], None]
"""Sees the state of an iteration and the answers to its calls, before they are settled; changes neither."""


def _nobody(state: State, answers: Sequence[Tensor]) -> None:
    pass


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """All that does not change.  eta in [0, 1]; solver "ddim", or "2m" (second order, eta 0).

    Raises BadInput when plan and schedule disagree on the number of levels, or eta and solver on noise.
    """

    plan: Plan
    schedule: NoiseSchedule
    execute: Executor
    condition: Conditioner
    noise: Noise
    eta: float = 0.0
    solver: Solver = "ddim"
    _levels: dict[torch.device, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.plan.levels != self.schedule.levels:
            raise BadInput(
                f"the plan holds {self.plan.levels} levels ({self.plan.partitions} "
                f"windows of {self.plan.window}, "
                f"{self.plan.frames_per_level} frames a level) and the schedule "
                f"{self.schedule.levels}; they must agree"
            )
        if not 0 <= self.eta <= 1:
            raise BadInput(f"eta is {self.eta}; it must lie in [0, 1] (0 draws no noise, 1 is ancestral)")
        if self.solver not in ("ddim", "2m"):
            raise BadInput(f'solver is {self.solver!r}; it must be "ddim" or "2m"')
        if self.solver == "2m" and self.eta != 0:
            raise BadInput(f'eta is {self.eta} with solver "2m", which draws no noise; use eta 0 or solver "ddim"')

    def warm_start(self, clip: Tensor) -> State:
        """A queue made of a clean clip (B, C, f, H, W): its frames at the back, its first repeated before.

        The repeats come off first and are the run-in, as in the authors' code; frame 0 is the clip's own
        first (or one of its first k, where k does not divide the run-in).  Raises BadInput for a clip of
        another length.
        """
        plan, clean = self.plan, self._held(clip)
        iteration = (plan.window - plan.window * plan.partitions) // plan.frames_per_level  # whole iterations
        noise = draw(self.noise, self._first(iteration), plan.level.tolist(), clean)
        return State(iteration, self.schedule.add_noise(clean, noise, self._level(clean)))

    def continue_from(self, clip: Tensor) -> State:
        """The queue as it would stand if it had just made this clean clip (B, C, f, H, W) itself: frame 0 is the
        first after it.

        Every place holds a frame of the clip, noised to the place's level, but for the last k, where the first new
        frames wait as pure noise.  Until they come off (K - 1 iterations, in which the clip's frames leave), `settle`
        moves the clip's frames by what they are known to be, which is an exact sample of their noising for every eta
        and solver.  So at each level the new frames see before them the clip itself, and windows without new frames
        are not asked: a little over half of those iterations' calls.  (`warm_start` noises the clip to the last f
        levels, where little of it is left to go on from, and has it made anew.)

        A call that reads a new frame reads at most f - 1 places before it, so what came before the window of the
        clip is of no account; its first frame is repeated there.  Raises BadInput for a clip of another length.
        """
        plan, iteration, k = self.plan, 1 - self.plan.levels, self.plan.frames_per_level
        clean = self._held(clip).roll(-k, dims=2)
        noise = draw(self.noise, self._first(iteration), plan.level.tolist(), clean)
        noisy = self.schedule.add_noise(clean, noise, self._level(clean))
        return State(iteration, torch.cat([noisy[:, :, :-k], noise[:, :, -k:]], dim=2), given=clip)

    def cold_start(self, like: Tensor) -> State:
        """A queue of pure noise, for streams of latents like this one, (B, C, H, W); needs no base clip.

        The first K iterations (K - 1 without context) are a ramp: the whole queue goes down together, each
        place stopping at its own level.  So every frame is denoised from noise in steps of one level, never
        re-noised; the ramp begins at equal levels, as the model was trained, and ends at the diagonal.
        Nothing leaves and nothing enters meanwhile; then frame 0 is the next to leave.  No run-in is
        dropped; the context's own frames, numbered below 0, are made to be looked at and not shown.

        With partitions, the ramp's windows have nothing clean in common to agree by: with an exact network,
        the first f frames hold together less over long lags than the rest (lag 8: .29, then .41; f 16, n 2).
        Raises BadInput for another number of dimensions.
        """
        plan = self.plan
        if like.ndim != 4:
            raise BadInput(f"the latents have shape {tuple(like.shape)}; wanted (streams, channels, height, width)")
        queue = like.new_zeros(1).expand(*like.shape[:2], plan.length, *like.shape[2:])
        noise = draw(self.noise, self._first(0), [plan.levels] * plan.length, queue)
        return State(0, noise, ramp=self._ramp(plan.levels))

    def calls(self, state: State) -> list[Call]:
        """What the network must answer for this iteration.  All read the queue as it is, so none waits.

        Raises BadInput for a state of another plan.
        """
        if state.queue.ndim != 5 or state.queue.shape[2] != self.plan.length:
            raise BadInput(
                f"the state's queue has shape {tuple(state.queue.shape)}; this plan's is "
                f"(streams, channels, {self.plan.length} frames, height, width)"
            )
        first, level = self._first(state.iteration), self._level(state.queue).clamp(min=state.ramp)
        said = self.plan.level.clamp(min=state.ramp)
        time = self.schedule.times(level, state.queue).expand(state.queue.shape[0], -1)
        return [
            Call(
                state.queue[:, :, w.read],
                time[:, w.read],
                self.condition(range(first + w.read.start, first + w.read.stop)),
                w.kept,
                said[w.read],
            )
            for w in self._windows(state)
        ]

    def settle(self, state: State, answers: Sequence[Tensor]) -> tuple[Tensor, State]:
        """The frames that come off, (B, C, k, H, W) or none of them (k = 0) in a ramp, and the state after.

        answers: one (B, C, f, H, W) for each of `calls(state)`.  Nothing here waits for the device: whether the frames
        are numbers is for whoever takes them to the host to ask (`check_finite`).  Raises BadInput for answers of
        another shape.
        """
        plan, moving, known = self.plan, self._moving(state), self._known(state)
        z, out, level = self._answered(state, answers)
        queue, past = state.queue.clone(), None
        if self.solver == "2m":
            was = None if state.past is None else state.past[:, :, moving]
            queue[:, :, moving], x0 = self.schedule.step_2m(z, out, level, was, known)
            past = torch.zeros_like(queue, dtype=x0.dtype) if state.past is None else state.past.clone()
            past[:, :, moving] = x0
        else:
            queue[:, :, moving] = self.schedule.step(z, out, level, self.eta, self._fresh(state), known)

        k, context = plan.frames_per_level, plan.context
        if state.ramp:
            return queue[:, :, :0], State(state.iteration, queue, past, self._ramp(state.ramp - 1))
        frames = queue[:, :, context : context + k]
        tail = draw(self.noise, self.entered(state), [plan.levels] * k, frames)
        queue = torch.cat([queue[:, :, k:], tail], dim=2)
        if past is not None:  # what enters has no past; level K's is never looked at
            past = torch.cat([past[:, :, k:], torch.zeros_like(past[:, :, :k])], dim=2)
        given = state.given if state.iteration < 0 else None  # at 0 too: a decoder that begins there must see it
        return frames, State(state.iteration + 1, queue, past, given=given)

    def expected(self, state: State, answers: Sequence[Tensor]) -> Tensor:
        """(B, C, L, H, W): what the network takes each place's clean frame to be; of the places it was not asked, the
        queue as it is.  Raises BadInput as `settle` does.
        """
        x0, _ = self.schedule.split(*self._answered(state, answers), self._known(state))
        queue = state.queue.clone()
        queue[:, :, self._moving(state)] = x0
        return queue

    @torch.no_grad()
    def advance(self, state: State, look: Look = _nobody) -> tuple[Tensor, State]:
        """One iteration: `calls`, the executor, `settle`."""
        answers = self.execute(self.calls(state))
        look(state, answers)
        return self.settle(state, answers)

    def iterations(self, state: State, look: Look = _nobody) -> Iterator[tuple[Tensor, State]]:
        """Every iteration without end: the frames that come off, (B, C, k, H, W) or none of them (k = 0) in a ramp, and
        the state that carries on.  Those of the first `hidden(state)` iterations are not to be seen.
        """
        while True:
            frames, state = self.advance(state, look)
            yield frames, state

    def stream(self, state: State) -> Iterator[tuple[Tensor, State]]:
        """Frames without end, (B, C, k, H, W), the run-in left out.  Each comes with the state that carries on.

        Raises NotFinite as `check_finite` does, for which it waits for the device in every iteration.
        """
        for frames, after in self.iterations(state):
            check_finite(frames, (after.iteration - 1) * self.plan.frames_per_level)
            if frames.shape[2] and after.iteration > 0:
                yield frames, after

    def hidden(self, state: State) -> int:
        """How many iterations pass before a frame comes off that is to be seen."""
        return max(state.ramp - self.plan.cleanest if state.ramp else 0, -state.iteration, 0)

    def entered(self, state: State) -> int:
        """The number of the first frame that is not in the queue yet."""
        return self._first(state.iteration) + self.plan.length

    def _first(self, iteration: int) -> int:
        """The frame number at place 0."""
        return iteration * self.plan.frames_per_level - self.plan.context

    def _level(self, like: Tensor) -> Tensor:
        """The plan's levels on the device of `like`, sent there once."""
        if like.device not in self._levels:
            self._levels[like.device] = self.plan.level.to(like.device)
        return self._levels[like.device]

    def _ramp(self, ramp: int) -> int:
        """0, the ramp's end, once even the cleanest place has got to its level."""
        return ramp if ramp > self.plan.cleanest else 0

    def _moving(self, state: State) -> slice:
        """The places that this iteration moves: the noisy ones; in a ramp those still above their level."""
        plan = self.plan
        if state.ramp:
            return slice(0, plan.context + (state.ramp - 1) * plan.frames_per_level)
        return slice(plan.context, plan.length)

    def _known(self, state: State) -> int:
        """How many of the first places that move hold frames of the clip that goes on."""
        return 0 if state.given is None else -state.iteration * self.plan.frames_per_level

    def _windows(self, state: State) -> list[Window]:
        """The plan's windows with their writes cut to the places that move and are not known; in a ramp the first
        begins at place 0.
        """
        moving, out = self._moving(state), []
        asked = moving.start + self._known(state)
        for i, w in enumerate(self.plan.windows):
            start, stop = (asked if i == 0 else max(asked, w.write.start)), min(w.write.stop, moving.stop)
            if start < stop:
                out.append(Window(w.read, slice(start, stop)))
        return out

    def _answered(self, state: State, answers: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The places that move, what is said of each, both (B, C, F, H, W), and their levels (F,).  Of the frames of
        a clip that goes on the truth is said.
        """
        moving, known = self._moving(state), self._known(state)
        z, level = state.queue[:, :, moving], self._level(state.queue)[moving].clamp(min=state.ramp)
        out = torch.cat([a[:, :, w.kept] for w, a in zip(self._windows(state), answers, strict=True)], dim=2)
        if out.shape != z[:, :, known:].shape:
            raise BadInput(
                f"the network's answers to the {z.shape[2] - known} frames {tuple(z[:, :, known:].shape)} came "
                f"as {tuple(out.shape)}; "
                "an answer has the shape of its window"
            )
        if state.given is not None:
            length = state.given.shape[2]
            at = torch.arange(length - known, length, device=z.device).clamp(min=0)
            truth = self.schedule.answer(z[:, :, :known], state.given[:, :, at], level[:known])
            out = torch.cat([truth, out], dim=2)  # as exact as the truth is, where answers are in half precision
        return z, out, level

    def _held(self, clip: Tensor) -> Tensor:
        """(B, C, f, H, W) -> (B, C, L, H, W): its first frame repeated before it.  Raises BadInput."""
        if clip.ndim != 5 or clip.shape[2] != self.plan.window:
            raise BadInput(
                f"the clip has shape {tuple(clip.shape)}; wanted (streams, channels, "
                f"{self.plan.window} frames, height, width)"
            )
        still = clip[:, :, :1].expand(-1, -1, self.plan.length - self.plan.window, -1, -1)
        return torch.cat([still, clip], dim=2)

    def _fresh(self, state: State) -> Tensor | None:
        """The noise that this iteration's steps add, named for the levels they reach."""
        if self.eta == 0:
            return None
        moving = self._moving(state)
        levels = [max(k, state.ramp) - 1 for k in self.plan.level[moving].tolist()]  # of the host's own copy
        return draw(self.noise, self._first(state.iteration) + moving.start, levels, state.queue)


def check_finite(frames: Tensor, number: int) -> None:
    """Raises NotFinite where frames that came off, (B, C, k, H, W), the first of this number, hold NaN or infinity.

    Only these are looked at, on their way to the host: a bad answer gets here within K iterations, and looking at every
    answer would make the device wait.  Frames given before are good.
    """
    good = frames.isfinite().transpose(0, 2).flatten(1).all(dim=1).tolist()
    bad = [number + i for i, sound in enumerate(good) if not sound]
    if bad:
        where = f"in frame {', '.join(map(str, bad))}; the frames before are good" if number >= 0 else "in the run-in"
        raise NotFinite(f"the network's answers hold NaN or infinity {where}: try dtype float32, or less guidance")
