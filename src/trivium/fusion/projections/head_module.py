"""Projection heads in torch, several members at once, as they are trained; `head.Head` is the same in NumPy, to use."""

import math

import torch
from torch import Tensor, nn

from trivium.fusion.projections.head import LARGEST_INPUT


class HeadModule(nn.Module):
    """Standardised inputs to unit vectors of each member: unit(x A + b + relu(x H + h) O)."""

    def __init__(
        self,
        width: int,
        dim: int,
        *,
        members: int = 1,
        hidden: int = 0,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        """Make a head of random weights, whose hidden layer adds nothing at first.

        Args:
            width: Numbers of the input.
            dim: Numbers of each member's vectors.
            members: How many heads, each with weights of its own.
            hidden: Units of the hidden layer; none if 0.
            input_dropout: Share of the input's numbers that a pass of training leaves out.
            dropout: The same of the hidden layer's.
        """
        super().__init__()
        self.linear_weight = nn.Parameter(torch.randn(members, width, dim) / math.sqrt(width))
        self.linear_bias = nn.Parameter(torch.zeros(members, dim))
        self.has_hidden = hidden > 0
        if self.has_hidden:
            self.hidden_weight = nn.Parameter(torch.randn(members, width, hidden) * math.sqrt(2 / width))
            self.hidden_bias = nn.Parameter(torch.zeros(members, hidden))
            self.out_weight = nn.Parameter(torch.randn(members, hidden, dim) * 0.01 / math.sqrt(hidden))
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map standardised inputs (n, width) to unit vectors (members, n, dim)."""
        x = x.clamp(-LARGEST_INPUT, LARGEST_INPUT).expand(len(self.linear_weight), -1, -1)
        x = self.input_dropout(x)  # each member loses other numbers
        y = torch.baddbmm(self.linear_bias.unsqueeze(1), x, self.linear_weight)
        if self.has_hidden:
            hidden = torch.relu(torch.baddbmm(self.hidden_bias.unsqueeze(1), x, self.hidden_weight))
            y = y + torch.bmm(self.dropout(hidden), self.out_weight)
        return nn.functional.normalize(y, dim=-1)
