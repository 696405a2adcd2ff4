"""The options of the families of recurrent networks."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from aigc_music.training import MusicFamilyConfig
from aigc_sdk.training import FamilyConfig, split_at_commas
from aigc_text.training import TextFamilyConfig


class NetworkConfig(FamilyConfig):
    """The options that both families have."""

    batch_size: int | None = Field(
        None,
        ge=1,
        description="items in a batch, or places that a stream is read in at once; what suits the budget if left out",
    )
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate; warmed up, then a half cosine to 0")
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of the gradient; none if left out")

    cell: Literal["lstm", "gru", "rnn"] = Field(
        "lstm",
        description="lstm (Hochreiter & Schmidhuber 1997), gru (Cho et al. 2014), or rnn with tanh (Elman 1990)",
    )
    layers: int = Field(2, ge=1, le=4, description="recurrent layers, one on the other")
    width: int = Field(256, ge=4, le=4096, description="units of each layer")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of the values between layers that are left out")
    tied: bool = Field(True, description="use the vectors of the characters or events as weights of the output too")
    layer_norm: bool = Field(False, description="normalise what each layer gives (Ba et al. 2016)")
    attention: int = Field(
        0,
        ge=0,
        le=1024,
        description="how many of the last hidden states are attended to (Luong et al. 2015); 0 is none",
    )
    min_count: int = Field(
        2, ge=1, description="a character or event that occurs less often is unknown, and never made"
    )
    temperature: float = Field(1.0, ge=0, le=5, description="what the control of that name is, where it is left out")
    top_p: float = Field(1.0, ge=0.01, le=1, description="the same of top_p")


# What decides which weights a network has.
NETWORK_OPTIONS = ("cell", "layers", "width", "tied", "layer_norm", "attention")


class RNNConfig(NetworkConfig, TextFamilyConfig):
    """The options of the family of texts."""

    span: int | None = Field(
        None,
        ge=8,
        le=4096,
        description="characters that the gradient goes back through, where texts are a stream; what suits the budget if"
        " left out",
    )
    max_length: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="the most characters that the model makes; twice the longest text if left out, 2,000 for a stream",
    )


class MusicRNNConfig(NetworkConfig, MusicFamilyConfig):
    """The options of the family of music."""

    conditions: tuple[Literal["key", "meter", "bars"], ...] = Field(
        ("key", "meter"),
        description="what of a piece the network is told; with the metre also the place in the bar, with bars how many"
        " are left, for full_bars",
    )
    token_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the events, and of the notes of the bars before, hidden in training (Bowman et al. 2016)",
    )
    max_length: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="the most events that the model makes; those of the longest piece if left out",
    )

    _split = field_validator("conditions", mode="before")(split_at_commas)

    @model_validator(mode="after")
    def _bars_are_counted(self) -> Self:
        if self.full_bars and "meter" not in self.conditions:
            raise ValueError("full_bars needs meter among the conditions")
        if "bars" in self.conditions and not self.full_bars:
            raise ValueError("bars among the conditions need full_bars=true")
        return self
