"""The options of commands that learn and measure: spaces, text encoders, classifiers of one's own."""

import argparse

from trivium.encoders.base import MODALITIES
from trivium.pipeline.cli.options import above_zero, add_device, add_table, natural, numbers, positive, share

CORPUS = "text files, folders of them, and tables with a column of texts"


def add_alignment(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command that makes spaces."""
    align = commands.add_parser(
        "align",
        help="bring frozen encoders into one space, from tables of what belongs together",
        description="Each row of a TABLE holds what belongs together: a text, a picture, a sound, or two; a label "
        "becomes a text. Items are encoded once, and kept in the cache.",
    )
    align.add_argument(
        "tables", metavar="TABLE", nargs="+", help="CSV, JSON lines or Parquet; text, image, audio, label"
    )
    align.add_argument("--out", metavar="FOLDER", required=True, help="the space's folder; a space there is replaced")
    align.add_argument(
        "--encoders",
        metavar="ENCODERS",
        default="trivium-base",
        help="a space whose backbones are used, or text=...,image=...,audio=...; both: a space, and one added to it",
    )
    align.add_argument(
        "--keep",
        metavar="MODALITIES",
        default="",
        help="text,image: leave the space's own vectors of these as they are, and bring only the others to them",
    )
    align.add_argument("--name", help="of the space (default: the folder's)")
    align.add_argument(
        "--method",
        choices=("trained", "closed-form"),
        default="trained",
        help="closed-form: seconds instead of minutes, and nearly as good where pairs are few",
    )
    align.add_argument("--weights", type=numbers, metavar="W,W", help="how much each table counts (default 1 each)")
    align.add_argument("--templates", metavar="FILE", help="texts for labels, one a line, with {} for the label")
    align.add_argument("--validation", type=share, default=0.1, help="share that is held out (default 0.1)")
    align.add_argument(
        "--pseudo-pairs",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="of modalities that no table pairs: how much pairs of items with like texts count (default 0.5; 0: none)",
    )
    align.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")
    align.add_argument("--dim", type=positive, help="numbers of a member's vectors")
    align.add_argument("--members", type=positive, help="heads side by side; vectors have members x dim numbers")
    align.add_argument("--hidden", type=natural, help="units of a head's hidden layer; 0: none")
    align.add_argument("--epochs", type=positive, help="how long to train")
    align.add_argument("--loss", choices=("nce", "sigmoid"), help="InfoNCE (default), or the sigmoid loss")
    align.add_argument("--half", action="store_true", help="keep the heads in half precision")
    align.add_argument("--json", action="store_true", help="print the training record as one JSON object")
    add_table(align)
    add_device(align)


def add_learning(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that learn text encoders."""
    vectors = commands.add_parser(
        "word-vectors",
        help="write MiniLM's token embeddings as word vectors, in GloVe's format",
        description="A word's vector is the mean of its pieces' embeddings. Without TEXTS: MiniLM's own whole words.",
    )
    vectors.add_argument("texts", metavar="TEXTS", nargs="*", help=f"whose words are written: {CORPUS}")
    vectors.add_argument("--out", metavar="FILE", required=True, help="a line for each word: it, and its numbers")
    vectors.add_argument("--words", type=positive, default=100_000, help="the most frequent ones (default 100000)")
    add_table(vectors)

    train = commands.add_parser(
        "train-text",
        help="train a text classifier: an LSTM over word vectors, a Transformer, or a fine-tuned encoder",
        description="Each row of TABLE holds a text and its label.",
    )
    train.add_argument("table", metavar="TABLE", help="CSV, JSON lines or Parquet; text, label")
    train.add_argument("--out", metavar="FOLDER", required=True, help="the classifier's folder; one there is replaced")
    train.add_argument("--test", metavar="TABLE", help="texts and labels whose loss is told after each epoch")
    train.add_argument(
        "--model",
        metavar="MODEL",
        default="lstm",
        help="lstm (default) or transformer, from nothing; minilm, or a folder of `pretrain-text`: fine-tuned",
    )
    train.add_argument("--vectors", metavar="FILE", help="word vectors in GloVe's format that the LSTM begins with")
    train.add_argument("--validation", type=share, default=0.1, help="share held out to choose the epoch (default 0.1)")
    train.add_argument("--optimiser", choices=("sgd", "adamw"), help="default: sgd for the LSTM, else adamw")
    train.add_argument("--both-ways", action="store_true", help="let the LSTM read backwards too")
    train.add_argument("--last", action="store_true", help="take the LSTM's last state, not the mean of all")
    train.add_argument("--words", type=positive, default=25_000, help="of the LSTM's vocabulary (default 25000)")
    train.add_argument("--max-tokens", type=positive, help="longer texts are cut in the middle (default 256)")
    train.add_argument("--dropout", type=share, help="share that is left out in training")
    _add_training(train)

    pretrain = commands.add_parser(
        "pretrain-text",
        help="pre-train a text encoder on texts without labels, as a masked language model",
        description="BERT's recipe: 15 %% of the tokens are asked for; of these 80 %% are masked, 10 %% replaced, "
        "10 %% left. Run it again to go on where it was stopped.",
    )
    pretrain.add_argument("corpus", metavar="CORPUS", nargs="+", help=CORPUS)
    pretrain.add_argument("--out", metavar="FOLDER", required=True, help="the encoder's folder; one there is replaced")
    pretrain.add_argument(
        "--model", metavar="MODEL", default="minilm", help="minilm (default), transformer from nothing, or a folder"
    )
    pretrain.add_argument("--window", type=positive, help="tokens that are seen at a time (default 128)")
    _add_training(pretrain)

    distill = commands.add_parser(
        "distill",
        help="teach a small text encoder the vectors of a space's own, for faster queries",
        description="The space that is written has the small encoder for texts, and all else as it was.",
    )
    distill.add_argument("texts", metavar="TEXTS", nargs="+", help=CORPUS)
    distill.add_argument("--space", default="trivium-base", help="whose text encoder is the teacher")
    distill.add_argument("--out", metavar="FOLDER", required=True, help="the new space's folder")
    distill.add_argument("--name", help="of the new space (default: the folder's)")
    distill.add_argument("--student", choices=("transformer", "lstm"), default="transformer")
    distill.add_argument("--words", type=positive, default=25_000, help="of an LSTM's vocabulary (default 25000)")
    distill.add_argument(
        "--parts", type=natural, default=0, help="how many stretches of the texts to learn too: queries are shorter"
    )
    _add_training(distill)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Let the user say how a network is trained."""
    parser.add_argument("--width", type=positive, help="numbers of a token, or of an LSTM's state")
    parser.add_argument("--layers", type=positive, help="one upon the other")
    parser.add_argument("--epochs", type=positive, help="how often each text is seen")
    parser.add_argument("--batch", type=positive, help="texts of a step")
    parser.add_argument("--learning-rate", type=above_zero, help="the largest: it rises, and falls to 0")
    parser.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_table(parser)
    add_device(parser)


def add_evaluation(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that say how good a space is."""
    table = "CSV, JSON lines (.jsonl) or Parquet; columns text, image, audio, label, score; files relative to it"
    evaluate = commands.add_parser(
        "evaluate",
        help="measure how well a space finds what belongs together: recall from any modality to any",
        description="Each row of TABLE holds what belongs together: a text, a picture, a sound, or two of them.",
    )
    evaluate.add_argument("space", metavar="SPACE", help="a space's name or folder (see `trivium spaces`)")
    evaluate.add_argument("table", metavar="TABLE", help=table)
    add_table(evaluate)
    evaluate.add_argument(
        "--limit", type=positive, metavar="N", help="use N pictures (or sounds) drawn at random, with all their rows"
    )
    evaluate.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")
    _add_report(evaluate, "evaluation.json, evaluation.md and recall.png")

    zero_shot = commands.add_parser(
        "zero-shot",
        help="measure how well a space names things by the words of their classes",
        description="Each row of TABLE holds a picture, a sound or a text, and its label; the labels are the classes.",
    )
    zero_shot.add_argument("space", metavar="SPACE", help="a space's name or folder (see `trivium spaces`)")
    zero_shot.add_argument("table", metavar="TABLE", help=table)
    zero_shot.add_argument("--modality", choices=MODALITIES, required=True, help="what is named")
    zero_shot.add_argument("--label", metavar="COLUMN", required=True, help="the column with the classes")
    zero_shot.add_argument(
        "--templates",
        metavar="FILE",
        help="prompts, one a line, with {} where the label goes (the output tells the default)",
    )
    add_table(zero_shot)
    _add_report(zero_shot, "zero-shot.json, zero-shot.md and confusion.png")


def add_fused(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands for people with a classifier downstream."""
    table = "CSV, JSON lines (.jsonl) or Parquet; columns text, image, audio, any of them; files relative to it"
    features = commands.add_parser(
        "features", help="write one vector for each row of a table of texts, pictures and sounds"
    )
    features.add_argument("table", metavar="TABLE", help=table)
    features.add_argument("--out", metavar="FILE", required=True, help="NAME.parquet or NAME.csv")
    features.add_argument(
        "--fusion",
        default="concatenation",
        help="concatenation (default), mean, or a network (gated-units, ...), which is trained on --label; a wrong one "
        "lists all",
    )
    features.add_argument("--label", metavar="COLUMN", help="what a network is trained on")
    features.add_argument("--space", help="a space's name or folder, whose encoders are used (default: trivium-base)")
    features.add_argument(
        "--no-layers",
        dest="layers",
        action="store_false",
        help="leave out what inner layers of the encoders say: a third of the numbers, and not as good",
    )
    features.add_argument(
        "--imagine",
        metavar="COLLECTION",
        help="beside these, what a collection recalls of each row: features of the items nearest to it",
    )
    features.add_argument(
        "--recalled", choices=MODALITIES, default="image", metavar="MODALITY", help="of which items (default: image)"
    )
    features.add_argument(
        "--asked-by", choices=MODALITIES, default="text", metavar="MODALITY", help="how they are found (default: text)"
    )
    _add_fused_options(features)

    classify = commands.add_parser(
        "classify",
        help="train, use and measure a classifier of texts, pictures and sounds together",
        description="How modalities are fused is chosen by validation on the training rows.",
    )
    actions = classify.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train a classifier on a table with labels")
    train.add_argument("table", metavar="TABLE", help=table)
    train.add_argument("--label", metavar="COLUMN", required=True, help="the column to predict")
    train.add_argument("--out", metavar="MODEL", required=True, help="the model's folder; a model there is replaced")
    train.add_argument("--fusion", default="auto", help="auto (default) or one way; a wrong one lists all")
    train.add_argument("--metric", choices=("f1_macro", "accuracy"), default="f1_macro", help="what auto is chosen by")
    train.add_argument("--regression", action="store_true", help="the column holds numbers, not classes")
    train.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")
    train.add_argument("--space", help="a space's name or folder, whose encoders are used (default: trivium-base)")
    train.add_argument(
        "--train-on",
        choices=MODALITIES,
        metavar="MODALITY",
        help="learn from this modality's labels alone, in the space: others can be asked about (--apply-to), and their "
        "columns in TABLE say where they lie, no labels needed",
    )
    _add_fused_options(train)

    predict = actions.add_parser("predict", help="write a prediction for each row of a table")
    predict.add_argument("model", metavar="MODEL")
    predict.add_argument("table", metavar="TABLE", help=table)
    predict.add_argument("--out", metavar="FILE", required=True, help="NAME.parquet or NAME.csv")
    _add_apply_to(predict)
    _add_fused_options(predict)
    predict.set_defaults(precision=None)  # as trained

    report = actions.add_parser(
        "report", help="measure a classifier: figures with intervals, what each modality adds, what it bears"
    )
    report.add_argument("model", metavar="MODEL")
    report.add_argument("table", metavar="TABLE", help=table)
    report.add_argument("--label", metavar="COLUMN", help="the column with the truth (default: as trained)")
    report.add_argument("--out", metavar="FOLDER", help="also write report.json, report.md and pictures there")
    report.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")
    _add_apply_to(report)
    _add_fused_options(report)
    report.set_defaults(precision=None)


def _add_apply_to(parser: argparse.ArgumentParser) -> None:
    what = "look at this modality alone (default: at all that a row has)"
    parser.add_argument("--apply-to", choices=MODALITIES, metavar="MODALITY", help=what)


def _add_fused_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--column",
        metavar="ROLE=NAME",
        action="append",
        default=[],
        help="read text, image or audio from the column NAME (default: the role's own name, or caption, title, path); "
        "'ROLE=' leaves it out",
    )
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _add_report(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--out", metavar="FOLDER", help=f"also write {files} there")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_device(parser)
