"""`altdiffusion embed`: unit vectors of pictures and texts, in a file."""

import argparse
import json
import sys
from pathlib import Path

from altdiffusion_clip.commands.judge_options import (
    add_cache_options,
    add_judge_option,
    add_long_text_option,
    bench_for,
    judges_of,
)
from altdiffusion_clip.commands.options import add_model_options, device_and_dtype
from altdiffusion_clip.errors import UserError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "embed",
        help="Write vectors of pictures and texts to a file.",
        description="Write unit vectors of pictures and texts to a file. Pictures that cannot be read are listed on "
        "stderr, and the exit code is then 1.\n\n"
        "In .npz and .safetensors, img_embedding and text_embedding are float32 (number, width); images holds the "
        "paths and texts the texts (arrays in .npz, JSON in the metadata of .safetensors); logit_scale is 1 / "
        "temperature. .parquet has rows with kind (image or text), id and embedding. `altdiffusion evaluate "
        "retrieval` reads these files.",
        examples=[
            "altdiffusion embed pictures/ --texts 猫 'a dog' --output vectors.npz",
            "altdiffusion embed --dataset flickr30k --folder data/flickr30k --output flickr30k.safetensors",
        ],
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE|FOLDER", help="Pictures, or folders of pictures.")
    parser.add_argument("--texts", nargs="+", default=[], metavar="TEXT", help="Texts.")
    parser.add_argument("--texts-file", type=Path, metavar="FILE", help="A file with one text per line.")
    parser.add_argument("--dataset", metavar="NAME", help="A data set of `evaluate retrieval`.")
    parser.add_argument("--folder", type=Path, help="Folder of the data set.")
    add_judge_option(parser, "--model")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="A .npz, .safetensors or .parquet file."
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="Pictures at a time (default: %(default)s)."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object, not a sentence.")
    add_long_text_option(parser)
    add_cache_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Encodes and writes. Returns whether all pictures could be read."""
    from altdiffusion_clip.commands.options import prepare_output
    from altdiffusion_clip.evaluation.datasets.names import read_dataset
    from altdiffusion_clip.evaluation.datasets.text_files import lines
    from altdiffusion_clip.images import find_images
    from altdiffusion_clip.judges.embedding_files import Embeddings, check_suffix, write_embeddings
    from altdiffusion_clip.judges.ensembles import Panel
    from altdiffusion_clip.judges.judging import embed_pictures
    from altdiffusion_clip.judges.names import load_dual
    from altdiffusion_clip.sources.pictures import Located, StoredImage

    check_suffix(options.output)
    if options.batch_size < 1:
        raise UserError("--batch-size must be 1 or more")
    files = find_images(options.paths)
    images: dict[str, StoredImage] = {str(path): Located(str(path)) for path in files}
    texts = [*options.texts, *(lines(options.texts_file) if options.texts_file else [])]
    if options.dataset:
        task = read_dataset(options.dataset, options.folder)
        images |= dict(zip(task.ids, task.images, strict=True))
        texts += [text for language in task.languages.values() for text in language.texts]
    texts = [text for text in dict.fromkeys(texts) if text.strip()]
    if not images and not texts:
        raise UserError("nothing to embed; name pictures, --texts, --texts-file or --dataset")

    prepare_output()
    judge = load_dual(judges_of(options), *device_and_dtype(options))
    if options.long_text == "window-max":
        raise UserError("--long-text window-max gives a score for each part, and no vector; take window-mean or full")
    if options.long_text != "truncate":
        judge.read_at_length(options.long_text)
    bench = bench_for(options, Panel([judge]), options.batch_size)
    text_vectors = bench.encoder.texts(texts).numpy()
    encoded = embed_pictures(bench, list(images.values()))
    broken = [(list(images.values())[place].name, reason) for place, reason in encoded.broken]
    gone = {place for place, _ in encoded.broken}
    kept = [place for place in range(len(images)) if place not in gone]
    names = list(images)
    vectors = encoded.vectors[kept]
    embeddings = Embeddings(
        [names[place] for place in kept], vectors, texts, text_vectors, judge.logit_scale, bench.encoder.fingerprint
    )
    write_embeddings(options.output, embeddings)
    for name, reason in broken:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    summary = {
        "file": str(options.output),
        "images": len(kept),
        "texts": len(texts),
        "width": judge.dim,
        "logit_scale": round(judge.logit_scale, 4),
        "temperature": round(1 / judge.logit_scale, 6),
        "skipped": len(broken),
    }
    if options.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print(
            f"{options.output}: {len(kept)} pictures and {len(texts)} texts, unit vectors of {judge.dim} numbers, "
            f"temperature {summary['temperature']}"
        )
    return not broken
