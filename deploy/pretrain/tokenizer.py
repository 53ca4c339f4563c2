"""A tokenizer of whole words, for the small vocabulary of the captions."""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from common.datasets.birds import captions
from common.datasets.birds.species import KINDS

PAD, BEGIN, END, UNKNOWN = "[PAD]", "[BOS]", "[EOS]", "[UNK]"
PROMPT = "a photo of which has shows with and kind"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with lower case, no punctuation, and one id per word. Unknown words share one id. It marks the begin
    and the end of a text."""
    special = [PAD, BEGIN, END, UNKNOWN]
    vocabulary = {word: number for number, word in enumerate([*special, *_words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex("[^a-z0-9]+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, vocabulary[BEGIN]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END, unk_token=UNKNOWN
    )


def _words() -> list[str]:
    texts = [PROMPT, *KINDS, *captions.SUBJECTS]
    texts += [word for words in captions.WORDS.values() for word in words]
    texts += [phrase for phrases in captions.PHRASES.values() for phrase in phrases]
    texts += [phrase for values in captions.SHAPES.values() for phrases in values.values() for phrase in phrases]
    texts += [phrase for phrases in captions.PLACES.values() for phrase in phrases]
    return sorted({word for text in texts for word in text.split() if word.isalpha()})
