"""Control of continuous actions: population decoders, actors, critics, replay, normalised observations, noise."""

from jellyfit.control.actors import Actor, MLPActor, SpikingActor
from jellyfit.control.critics import Critic
from jellyfit.control.decoders import Decoder, GroupLinear, MembraneDecoder, RateDecoder
from jellyfit.control.experience import Experience, side_by_side
from jellyfit.control.noise import ActionNoise, GaussianNoise, OrnsteinUhlenbeckNoise
from jellyfit.control.normalisation import RunningNorm
from jellyfit.control.policy import Policy
from jellyfit.control.replay import NStep, PrioritisedReplay, ReplayBuffer, Transitions
from jellyfit.control.rollout import Episodes, Rollout, Spaces, Step, evaluate, spaces_of
from jellyfit.control.stacking import StackedLinear, stack, unstack

__all__ = [
    "ActionNoise",
    "Actor",
    "Critic",
    "Decoder",
    "Episodes",
    "Experience",
    "GaussianNoise",
    "GroupLinear",
    "MLPActor",
    "MembraneDecoder",
    "NStep",
    "OrnsteinUhlenbeckNoise",
    "Policy",
    "PrioritisedReplay",
    "RateDecoder",
    "ReplayBuffer",
    "Rollout",
    "RunningNorm",
    "Spaces",
    "SpikingActor",
    "StackedLinear",
    "Step",
    "Transitions",
    "evaluate",
    "side_by_side",
    "spaces_of",
    "stack",
    "unstack",
]
