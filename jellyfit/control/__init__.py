"""Control of continuous actions: population decoders, actors, critics, replay, normalised observations, noise."""

from jellyfit.control.actors import Actor, MLPActor, SpikingActor
from jellyfit.control.critics import Critic
from jellyfit.control.decoders import Decoder, GroupLinear, MembraneDecoder, RateDecoder
from jellyfit.control.noise import ActionNoise, GaussianNoise, OrnsteinUhlenbeckNoise
from jellyfit.control.normalisation import RunningNorm
from jellyfit.control.replay import NStep, PrioritisedReplay, ReplayBuffer, Transitions
from jellyfit.control.rollout import Episodes, Rollout, Spaces, Step, evaluate, spaces_of

__all__ = [
    "ActionNoise",
    "Actor",
    "Critic",
    "Decoder",
    "Episodes",
    "GaussianNoise",
    "GroupLinear",
    "MLPActor",
    "MembraneDecoder",
    "NStep",
    "OrnsteinUhlenbeckNoise",
    "PrioritisedReplay",
    "RateDecoder",
    "ReplayBuffer",
    "Rollout",
    "RunningNorm",
    "Spaces",
    "SpikingActor",
    "Step",
    "Transitions",
    "evaluate",
    "spaces_of",
]
