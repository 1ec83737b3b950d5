"""The Beam graph: reading, embedding and writing as transforms for any pipeline.

    radiographs = paths | ReadRadiographs()
    embedded = radiographs.radiographs | EmbedRadiographs("my_model")
    written = embedded.embeddings | WriteRecords("embeddings")

`graph` puts them together to the main job. This is the only room that imports Beam.
"""

from cxr_embed.elements import Embedding, ImageRef
from cxr_embed.models import ModelSettings
from cxr_embed.outcomes import Embedded, Failed, Skipped
from cxr_embed.pipeline.embed import EmbedImages, EmbedImagesResult, EmbedRadiographs, EmbedResult
from cxr_embed.pipeline.handler import EmbeddingModelHandler
from cxr_embed.pipeline.read import ReadRadiographs, ReadResult
from cxr_embed.pipeline.write import WriteRecords, WriteResult
from cxr_embed.radiograph import Radiograph

__all__ = [
    "EmbedImages",
    "EmbedImagesResult",
    "EmbedRadiographs",
    "EmbedResult",
    "Embedded",
    "Embedding",
    "EmbeddingModelHandler",
    "Failed",
    "ImageRef",
    "ModelSettings",
    "Radiograph",
    "ReadRadiographs",
    "ReadResult",
    "Skipped",
    "WriteRecords",
    "WriteResult",
]
