"""What a bank of exemplars is made from: the parameters of its source, a seed, and the identity of both."""

from dataclasses import dataclass
from typing import Annotated, TypeVar

from icl_transience.specs.identity import Identified, identity
from icl_transience.specs.image_sources import Images, Omniglot
from icl_transience.specs.keys import Key, SeedNumber, tagged
from icl_transience.specs.sources import BankShape, Gaussian, ImageShape, Imported, Manifold, OneHot, Tokens

# The parameters of a bank: those of one of the sources.
Parameters = (
    Annotated[Gaussian, Key("exemplars that scatter about the means of their classes")]
    | Annotated[Manifold, Key("classes that are Gaussian in other coordinates, and curved")]
    | Annotated[OneHot, Key("one exemplar a class, a coordinate each")]
    | Annotated[Omniglot, Key("drawings of characters")]
    | Annotated[Images, Key("pictures in a folder for each class")]
    | Annotated[Tokens, Key("clusters of a language model's token embeddings")]
    | Annotated[Imported, Key("an array of embedded exemplars that was made elsewhere")]
)
SOURCES = tuple(kind.source for kind in (Gaussian, Manifold, OneHot, Omniglot, Images, Tokens, Imported))
OneSource = TypeVar("OneSource", Gaussian, Manifold, OneHot, Omniglot, Images, Tokens, Imported)


@dataclass(frozen=True, kw_only=True)
class BankSpec(Identified):
    """What a bank is made from.

    parameters: of its source. In JSON and in studies they are two keys: `source`, and a section of that name.
    files: SHA-256 of the source files, in order.
    """

    parameters: Annotated[
        Parameters, Key("where the exemplars come from; only the section of that name counts", default="gaussian")
    ] = tagged("source")
    seed: Annotated[SeedNumber, Key("draws classes, exemplars and the held-out split", default=0)]
    files: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Return the name of the source."""
        return self.parameters.source

    def parameters_of(self, kind: type[OneSource]) -> OneSource:
        """Return the parameters of a bank that is of this source. Raises TypeError where it is of another."""
        if not isinstance(self.parameters, kind):
            raise TypeError(f"bank {self.id} is of source {self.source}, expected {kind.source}")
        return self.parameters

    @property
    def shape(self) -> BankShape:
        """Return the sizes of the bank."""
        return self.parameters.shape

    @property
    def pictures(self) -> Omniglot | Images | None:
        """Return the parameters of a source of pictures; None where exemplars were none."""
        return self.parameters if isinstance(self.parameters, Omniglot | Images) else None

    @property
    def images(self) -> ImageShape | None:
        """Return the sizes of its images where it is a bank of images; None where it holds embeddings."""
        return self.pictures.images if self.pictures else None

    @property
    def uses_resnet18(self) -> bool:
        """Return whether its images go through the pretrained ResNet-18."""
        return self.pictures is not None and self.pictures.encoder == "resnet18"

    @property
    def slug(self) -> str:
        """Return the readable beginning of its id."""
        return f"{self.source}-{self.shape.n_train_classes}x{self.shape.n_train_exemplars}"

    @property
    def id(self) -> str:
        """Return its name in files: what it is, and its identity."""
        return f"{self.slug}-{identity('bank', self)}"
