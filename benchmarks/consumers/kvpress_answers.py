"""Answers of a model under an exported press; runs in kvpress's own environment.

    python kvpress_answers.py MODEL_FOLDER PRESS_FOLDER PROMPTS.jsonl ANSWERS.jsonl

Every line of PROMPTS has context_ids, question_ids and max_new_tokens. The answers are those of
kvpress's own pipeline, which reads the context under the press and the question behind it; a line
of ANSWERS has `pressed`, and `plain` without the press. `kvpress_needles.py` calls this.
"""

import json
import sys
from pathlib import Path

import torch
from kvpress import KVPressTextGenerationPipeline
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def main() -> None:
    folder, press_folder, prompts, answers = map(Path, sys.argv[1:])
    sys.path.insert(0, str(press_folder))
    from profile_press import ProfilePress

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pipe = KVPressTextGenerationPipeline(model=model, tokenizer=tokenizer)
    lines = prompts.read_text().splitlines()
    with answers.open("w") as file, torch.no_grad():
        for number, line in enumerate(lines):
            told = json.loads(line)
            inputs = {
                "context_ids": torch.tensor([told["context_ids"]]),
                "questions_ids": [torch.tensor([told["question_ids"]])],
            }
            said = {}
            for name, press in (("pressed", ProfilePress()), ("plain", None)):
                said[name] = pipe._forward(inputs, told["max_new_tokens"], press)[0]
                for module in model.modules():  # a press leaves its mask behind
                    if hasattr(module, "masked_key_indices"):
                        del module.masked_key_indices
            file.write(json.dumps(said) + "\n")
            file.flush()
            print(f"kvpress: {number + 1} of {len(lines)}", file=sys.stderr)


if __name__ == "__main__":
    main()
