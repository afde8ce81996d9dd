"""The commands that learn text encoders: `word-vectors`, `train-text`, `pretrain-text` and `distill`."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trivium.encoders.base import Modality
from trivium.encoders.devices import resolve
from trivium.encoders.text.own_models import check_model_target, revision_of, save_text_model
from trivium.encoders.text.shapes import TEXT_MODEL
from trivium.encoders.text.words import (
    WordVectorsError,
    frequent_words,
    minilm_word_vectors,
    read_word_vectors,
    whole_words_of_minilm,
    write_word_vectors,
)
from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import (
    UsageError,
    above_zero,
    add_device,
    add_json,
    add_seed,
    add_table,
    columns_of,
    device_of,
    natural,
    positive,
    share,
    where_of,
)
from trivium.pipeline.cli.terminal import announce, progress_bars, say
from trivium.pipeline.escaping import printable
from trivium.pipeline.space.config import EncoderConfig, ProjectionConfig, SpaceError
from trivium.pipeline.space.folder import check_target, write_space
from trivium.pipeline.space.joint import JointSpace, load_space

if TYPE_CHECKING:  # they bring torch, which --help need not wait for
    from trivium.pipeline.text_learning.corpus import Corpus
    from trivium.pipeline.text_learning.starting import Start

CORPUS = "text files, folders of them, and tables with a column of texts"
TRAINING_FILE = "training.json"
STUDENT = "student"  # the folder of a student in its space's
MINILM, TRANSFORMER, LSTM = "minilm", "transformer", "lstm"
HEAD_NUMBERS = 32  # of each head of attention: MiniLM's
EMBEDDING = 100  # numbers of a random word vector: the smallest of GloVe's usual widths but one


def word_vectors_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium word-vectors`."""
    parser.description = (
        "A word's vector is the mean of its pieces' embeddings. Without TEXTS: MiniLM's own whole words."
    )
    parser.add_argument("texts", metavar="TEXTS", nargs="*", help=f"whose words are written: {CORPUS}")
    parser.add_argument("--out", metavar="FILE", required=True, help="a line for each word: it, and its numbers")
    parser.add_argument("--words", type=positive, default=100_000, help="the most frequent ones (default 100000)")
    add_table(parser)


def run_word_vectors(options: argparse.Namespace) -> int:
    """Write word vectors that MiniLM's token embeddings give, in GloVe's format."""
    target = Path(options.out)
    if options.texts:
        corpus = _corpus(options, options.texts)
        words = frequent_words(corpus.texts, most=options.words, least_often=1)
    else:
        words = whole_words_of_minilm()[: options.words]
    vectors = minilm_word_vectors(words)
    is_known = np.abs(vectors).sum(axis=1) > 0
    kept = [word for word, known in zip(words, is_known, strict=True) if known]
    write_word_vectors(target, kept, vectors[is_known])
    say(f"{len(kept):,} words with {vectors.shape[1]} numbers each are in {printable(str(target))}")
    return 0


def train_text_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium train-text`."""
    parser.description = "Each row of TABLE holds a text and its label."
    parser.add_argument("table", metavar="TABLE", help="CSV, JSON lines or Parquet; text, label")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the classifier's folder; one there is replaced")
    parser.add_argument("--test", metavar="TABLE", help="texts and labels whose loss is told after each epoch")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        default="lstm",
        help="lstm (default) or transformer, from nothing; minilm, or a folder of `pretrain-text`: fine-tuned",
    )
    parser.add_argument("--vectors", metavar="FILE", help="word vectors in GloVe's format that the LSTM begins with")
    parser.add_argument(
        "--validation", type=share, default=0.1, help="share held out to choose the epoch (default 0.1)"
    )
    parser.add_argument("--optimiser", choices=("sgd", "adamw"), help="default: sgd for the LSTM, else adamw")
    parser.add_argument("--both-ways", action="store_true", help="let the LSTM read backwards too")
    parser.add_argument("--last", action="store_true", help="take the LSTM's last state, not the mean of all")
    parser.add_argument("--words", type=positive, default=25_000, help="of the LSTM's vocabulary (default 25000)")
    parser.add_argument("--max-tokens", type=positive, help="longer texts are cut in the middle (default 256)")
    parser.add_argument("--dropout", type=share, help="share that is left out in training")
    _add_training(parser)


def run_train_text(options: argparse.Namespace) -> int:
    """Train a text classifier, and say how good it is after each epoch."""
    from trivium.pipeline.text_learning.classifying import (
        EpochReport,
        LabelledTexts,
        new_classifier,
        record_of,
        train_classifier,
    )
    from trivium.pipeline.text_learning.corpus import read_labelled

    target = Path(options.out)
    check_model_target(target)
    device = _device(options)
    columns = columns_of(options)
    given = read_labelled(options.table, columns=columns, where=where_of(options))
    test = None
    if options.test is not None:
        test = read_labelled(options.test, columns=columns, where={})
    order: list[int] = np.random.default_rng((options.seed, 5)).permutation(len(given.texts)).tolist()
    held = round(options.validation * len(order))

    def chosen(rows: list[int]) -> LabelledTexts:
        texts: list[str] = [given.texts[row] for row in rows]
        return LabelledTexts(texts, [given.labels[row] for row in rows])

    train, validation = chosen(order[held:]), chosen(order[:held]) if held else None
    labels = sorted(set(train.labels))
    for part, source in ((validation, options.table), (test, options.test)):
        if unknown := sorted(set(part.labels) - set(labels)) if part is not None else []:
            raise UsageError(f"{source} has labels that nothing is learnt of: {', '.join(unknown[:5])}")
    recipe = _classifier_recipe(options)
    start = _classifier_start(options, train.texts)
    try:
        classifier = new_classifier(
            start.network, config=start.config, tokenizer=start.tokenizer, labels=labels, recipe=recipe
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not options.json:
        say(_heading(has_validation=validation is not None, has_test=test is not None))

    def tell(report: EpochReport) -> None:
        if not options.json:
            say(_epoch_line(report), flush=True)

    with progress_bars() as show:
        found = train_classifier(
            classifier,
            train,
            recipe,
            validation=validation,
            test=test,
            device=device,
            progress=lambda done, total: show("train", done, total),
            tell=tell,
        )
    record = {"model": options.model, "vectors": options.vectors, "labels": labels, "texts": len(train.texts)}
    record |= record_of(recipe, found)
    classifier.save(target, more={TRAINING_FILE: json.dumps(record, indent=1) + "\n"})
    if options.json:
        say(json.dumps({**record, "out": str(target)}))
    else:
        say(f"The classifier of epoch {found.kept_epoch} is in {printable(str(target))}.")
    return 0


def pretrain_text_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium pretrain-text`."""
    parser.description = (
        "BERT's recipe: 15 % of the tokens are asked for; of these 80 % are masked, 10 % replaced, "
        "10 % left. Run it again to go on where it was stopped."
    )
    parser.add_argument("corpus", metavar="CORPUS", nargs="+", help=CORPUS)
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the encoder's folder; one there is replaced")
    parser.add_argument(
        "--model", metavar="MODEL", default="minilm", help="minilm (default), transformer from nothing, or a folder"
    )
    parser.add_argument("--window", type=positive, help="tokens that are seen at a time (default 128)")
    _add_training(parser)


def run_pretrain_text(options: argparse.Namespace) -> int:
    """Pre-train a text encoder as a masked language model; go on where an earlier run was stopped."""
    from tokenizers import Tokenizer

    from trivium.encoders.text.transformer import TransformerText
    from trivium.pipeline.text_learning.pretraining import Pretrainer, PretrainingRecipe
    from trivium.pipeline.text_learning.steps import CheckpointError, drop_checkpoint

    target = Path(options.out)
    check_model_target(target)
    device = _device(options)
    corpus = _corpus(options, options.corpus)
    recipe = _replaced(
        PretrainingRecipe(seed=options.seed),
        epochs=options.epochs,
        batch_texts=options.batch,
        window_tokens=options.window,
        learning_rate=options.learning_rate,
    )
    start = _transformer_start(options, dropout=recipe.dropout)
    if not isinstance(start.network, TransformerText):
        raise UsageError(f"--model {options.model}: only a Transformer can be pre-trained")
    tokenizer = Tokenizer.from_str(start.tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    checkpoints = target.with_name(f"{target.name}.checkpoint")
    try:
        pretrainer = Pretrainer(start.network, tokenizer, corpus.texts, recipe, device=device)
        with progress_bars() as show:
            told = pretrainer.run(checkpoints, progress=lambda done, total: show("steps", done, total))
    except CheckpointError as error:
        raise SpaceError(str(error)) from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    record = {"model": options.model, "texts": len(corpus.texts), "recipe": asdict(recipe), **asdict(told)}
    save_text_model(
        target,
        start.config,
        start.network.state_dict(),
        start.tokenizer,
        more={TRAINING_FILE: json.dumps(record, indent=1) + "\n"},
    )
    drop_checkpoint(checkpoints)
    if options.json:
        say(json.dumps({**record, "out": str(target)}))
        return 0
    first, last = told.held_out_losses[0], told.held_out_losses[-1]
    say(f"{told.windows:,} windows of {len(corpus.texts):,} texts, {told.steps:,} steps, {told.seconds:,.0f} s")
    say(f"loss of a hidden token, held out: {first:.2f} before, {last:.2f} after")
    say(f"The encoder is in {printable(str(target))}. Try: trivium train-text TABLE --model {target} --out CLASSIFIER")
    return 0


def distill_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium distill`."""
    parser.description = "The space that is written has the small encoder for texts, and all else as it was."
    parser.add_argument("texts", metavar="TEXTS", nargs="+", help=CORPUS)
    parser.add_argument("--space", default="trivium-base", help="whose text encoder is the teacher")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the new space's folder")
    parser.add_argument("--name", help="of the new space (default: the folder's)")
    parser.add_argument("--student", choices=("transformer", "lstm"), default="transformer")
    parser.add_argument("--words", type=positive, default=25_000, help="of an LSTM's vocabulary (default 25000)")
    parser.add_argument(
        "--parts", type=natural, default=0, help="how many stretches of the texts to learn too: queries are shorter"
    )
    _add_training(parser)


def run_distill(options: argparse.Namespace) -> int:
    """Teach a small text encoder the vectors of a space's own, and write the space with it."""
    from trivium.pipeline.text_learning.distillation import (
        DistillationRecipe,
        distil,
        distillation_record,
        parts_of_texts,
    )

    target = Path(options.out)
    check_target(target)
    device = _device(options)
    space = load_space(options.space, device=options.device, precision=options.precision, announce=announce)
    _refuse_labels(space)
    corpus = _corpus(options, options.texts)
    texts = list(corpus.texts)
    if options.parts:
        texts = list(dict.fromkeys([*texts, *parts_of_texts(texts, count=options.parts, seed=options.seed)]))
    recipe = _replaced(
        DistillationRecipe(seed=options.seed),
        epochs=options.epochs,
        batch_texts=options.batch,
        learning_rate=options.learning_rate,
    )
    width = options.width or (192 if options.student == TRANSFORMER else 256)
    try:
        start = _student(options, width=width, dim=space.space.dim, texts=corpus.texts)
        with progress_bars() as show:
            targets = space.encode("text", texts, progress=lambda done: show("teacher", done, len(texts)))
            told = distil(
                start, texts, targets, recipe, device=device, progress=lambda done, total: show("steps", done, total)
            )
    except ValueError as error:
        raise UsageError(str(error)) from error
    record = {"teacher": str(space.space), "student": options.student, "width": width, "layers": options.layers}
    record |= distillation_record(recipe, told)
    _write_student_space(target, space, start, record, name=options.name or target.name)
    if options.json:
        say(json.dumps({**record, "out": str(target)}))
        return 0
    say(
        f"{told.texts:,} texts, {told.seconds:,.0f} s; cosine with the teacher, held out: "
        f"{told.held_out_cosines[told.kept_epoch - 1]:.3f} (epoch {told.kept_epoch})"
    )
    say(f"The space is in {printable(str(target))}. Try: trivium evaluate {target} TABLE")
    return 0


def _device(options: argparse.Namespace) -> str:
    device_of(options)
    (device, *_) = resolve(options.device)
    return "cpu" if device.startswith("cpu") else device


def _corpus(options: argparse.Namespace, sources: list[str]) -> "Corpus":
    from trivium.pipeline.text_learning.corpus import read_corpus

    found = read_corpus(sources, columns=columns_of(options), where=where_of(options))
    for line in found.left_out[:10]:
        announce(f"left out: {line}")
    if len(found.left_out) > 10:
        announce(f"left out: {len(found.left_out) - 10:,} more")
    return found


def _replaced(recipe: Any, **given: Any) -> Any:
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})


def _classifier_recipe(options: argparse.Namespace) -> Any:
    from trivium.pipeline.text_learning.classifying import ClassifierRecipe

    recipe = ClassifierRecipe(seed=options.seed)
    if options.model == LSTM:  # the article's: SGD; what is random learns as fast as the linear layer
        recipe = replace(recipe, **LSTM_RECIPE)
    elif options.model == TRANSFORMER:
        recipe = replace(recipe, epochs=6, layer_decay=1.0, linear_factor=1.0, learning_rate=5e-4)
    if options.model in (LSTM, TRANSFORMER) and options.optimiser is not None:
        recipe = replace(recipe, learning_rate=RATES[options.optimiser])
    return _replaced(
        recipe,
        epochs=options.epochs,
        batch_texts=options.batch,
        max_tokens=options.max_tokens,
        optimiser=options.optimiser,
        learning_rate=options.learning_rate,
        dropout=options.dropout,
    )


LSTM_RECIPE: Mapping[str, Any] = {
    "epochs": 10,
    "batch_texts": 32,
    "optimiser": "sgd",
    "learning_rate": 0.3,
    "linear_factor": 1.0,
    "weight_decay": 0.0,
    "dropout": 0.3,
}
# What an optimiser begins with where it was named and its rate was not.
RATES: Mapping[str, float] = {"sgd": 0.3, "adamw": 1e-3}


def _classifier_start(options: argparse.Namespace, texts: Any) -> "Start":
    from trivium.pipeline.text_learning.starting import start_lstm, take_word_vectors

    recipe = _classifier_recipe(options)
    if options.vectors is not None and options.model != LSTM:
        raise UsageError(f"--vectors is for --model {LSTM}, which is made of words; {options.model} has its own")
    if options.model != LSTM:
        return _transformer_start(options, dropout=recipe.dropout, max_tokens=recipe.max_tokens)
    words = frequent_words(texts, most=options.words, least_often=2)
    try:
        found = None if options.vectors is None else read_word_vectors(Path(options.vectors), words)
    except WordVectorsError as error:
        raise UsageError(str(error)) from error
    start = start_lstm(
        words,
        embedding=EMBEDDING if found is None else found[1].shape[1],
        width=options.width or 128,
        layers=options.layers or 1,
        both_ways=options.both_ways,
        last=options.last,
        max_tokens=recipe.max_tokens,
        seed=options.seed,
        dropout=recipe.dropout,
    )
    if found is not None:
        known = take_word_vectors(start, found)
        announce(f"{known:,} of {len(words):,} words have a vector in {options.vectors}")
    return start


def _transformer_start(options: argparse.Namespace, *, dropout: float, max_tokens: int | None = None) -> "Start":
    from trivium.pipeline.text_learning.starting import start_from_folder, start_from_minilm, start_transformer

    try:
        if options.model == MINILM:
            return start_from_minilm(max_tokens=max_tokens or 256, dropout=dropout)
        if options.model == TRANSFORMER:
            width = options.width or 256
            return start_transformer(
                width=width,
                layers=options.layers or 4,
                heads=max(1, width // HEAD_NUMBERS),
                max_tokens=max_tokens or 256,
                seed=options.seed,
                dropout=dropout,
            )
        return start_from_folder(Path(options.model), max_tokens=max_tokens, dropout=dropout)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _student(options: argparse.Namespace, *, width: int, dim: int, texts: Any) -> "Start":
    from trivium.pipeline.text_learning.starting import start_lstm, start_student, take_word_vectors

    if options.student == TRANSFORMER:
        heads = max(1, width // HEAD_NUMBERS)
        return start_student(width=width, layers=options.layers or 2, heads=heads, dim=dim, seed=options.seed)
    words = frequent_words(texts, most=options.words, least_often=1)
    start = start_lstm(
        words, embedding=384, width=width, layers=options.layers or 1, max_tokens=64, dim=dim, seed=options.seed
    )
    vectors = minilm_word_vectors(words)
    take_word_vectors(start, ({word: row for row, word in enumerate(words)}, vectors))
    return start


def _refuse_labels(space: JointSpace) -> None:
    """Refuse a space that makes other modalities' vectors with its text encoder: a student would move them."""
    for modality in space.modalities:
        if space.config_of(modality).projection.kind in ("labels", "centred"):
            raise SpaceError(f"space {space.space} needs its own text encoder for {modality}: it takes no student")
    space.config_of("text")


def _write_student_space(target: Path, space: JointSpace, start: "Start", record: dict[str, Any], *, name: str) -> None:
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-student-") as scratch:
        model = Path(scratch) / STUDENT
        save_text_model(model, start.config, start.network.state_dict(), start.tokenizer)
        encoders: dict[Modality, EncoderConfig] = {m: space.config_of(m) for m in space.modalities}
        encoders["text"] = EncoderConfig(
            backbone=f"{TEXT_MODEL}{model}", projection=ProjectionConfig(kind="identity"), revision=revision_of(model)
        )
        write_space(
            target,
            name=name,
            description=f"{space.space.name} with a small text encoder that learnt from its own",
            dim=space.space.dim,
            encoders=encoders,
            heads={},
            relevance=space.relevance,
            more={TRAINING_FILE: json.dumps(record, indent=1) + "\n"},
        )


def _heading(*, has_validation: bool, has_test: bool) -> str:
    columns = [f"{'epoch':>5} {'train loss':>11}"]
    columns += [f"{'validation loss':>16} {'accuracy':>9}"] if has_validation else []
    columns += [f"{'test loss':>10} {'accuracy':>9}"] if has_test else []
    return " ".join([*columns, f"{'seconds':>8}"])


def _epoch_line(report: Any) -> str:
    line = f"{report.epoch:>5} {report.train_loss:>11.4f}"
    if report.validation_loss is not None:
        line += f" {report.validation_loss:>16.4f} {report.validation_accuracy:>9.1%}"
    if report.test_loss is not None:
        line += f" {report.test_loss:>10.4f} {report.test_accuracy:>9.1%}"
    return f"{line} {report.seconds:>8.0f}"


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Let the user say how a network is trained."""
    parser.add_argument("--width", type=positive, help="numbers of a token, or of an LSTM's state")
    parser.add_argument("--layers", type=positive, help="one upon the other")
    parser.add_argument("--epochs", type=positive, help="how often each text is seen")
    parser.add_argument("--batch", type=positive, help="texts of a step")
    parser.add_argument("--learning-rate", type=above_zero, help="the largest: it rises, and falls to 0")
    add_seed(parser)
    add_json(parser, help="print one JSON object and nothing else")
    add_table(parser)
    add_device(parser)


COMMANDS: Mapping[str, Command] = {
    "word-vectors": Command(word_vectors_options, run_word_vectors),
    "train-text": Command(train_text_options, run_train_text),
    "pretrain-text": Command(pretrain_text_options, run_pretrain_text),
    "distill": Command(distill_options, run_distill),
}
