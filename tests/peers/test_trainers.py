"""Hugging Face's Trainer, accelerate and Lightning with our optimizers: resume, the same bits."""

import pytest
import torch

from optim import build_optimizer, build_schedule

NAMES = ["adamw", "muon", "schedule_free_adamw"]
STEPS = 6


class Model(torch.nn.Module):
    """A small language model in the form that the Trainer expects: a dict with the loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.wte, self.h = torch.nn.Embedding(16, 12), torch.nn.Linear(12, 12)

    def forward(self, input_ids, labels):
        x = self.wte(input_ids)
        x = x + torch.tanh(self.h(x))
        logits = x @ self.wte.weight.mT
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}


def built(name, model):
    groups = [
        {"role": "embedding", "params": [model.wte.weight]},
        {"role": "hidden", "params": [model.h.weight]},
        {"role": "vector", "params": [model.h.bias], "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(name, groups, lr=1e-2, total_steps=STEPS)
    schedule = build_schedule("cosine", STEPS, warmup_steps=2)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)


def rows():
    tokens = (torch.arange(4 * STEPS)[:, None] + torch.arange(9)) % 16
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in tokens]


def same(one, two):
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_hugging_faces_trainer_resumes_to_the_same_bits(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def train(folder, resume=None):
        model = Model()
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            save_steps=3,
            eval_strategy="steps",  # which puts schedule-free weights into their other mode
            eval_steps=3,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=rows(),
            eval_dataset=rows()[:4],
            optimizers=built(name, model),
        )
        trainer.train(resume_from_checkpoint=resume)
        return model

    through = train(tmp_path / "one")
    resumed = train(tmp_path / "two", resume=str(tmp_path / "one" / "checkpoint-3"))
    assert same(through, resumed)
    assert not same(through, Model())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_accelerate_resumes_to_the_same_bits(name, tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def prepared():
        model = Model()
        accelerator = accelerate.Accelerator(cpu=True)
        return accelerator, *accelerator.prepare(model, *built(name, model))

    def take(accelerator, model, optimizer, scheduler, first, last):
        optimizer.train()
        for row in rows()[first:last]:
            loss = model(row["input_ids"][None], row["labels"][None])["loss"]
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        optimizer.eval()

    one = prepared()
    take(*one, 0, 3)
    one[0].save_state(str(tmp_path / "state"))
    take(*one, 3, STEPS)
    two = prepared()
    two[0].load_state(str(tmp_path / "state"))
    take(*two, 3, STEPS)
    assert same(one[1], two[1])
    assert not same(one[1], Model())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_lightning_resumes_to_the_same_bits(name, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Model()

        def training_step(self, batch, _):
            return self.model(batch["input_ids"], batch["labels"])["loss"]

        def configure_optimizers(self):
            optimizer, scheduler = built(name, self.model)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def train(steps, resume=None):
        module = Module()
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        # one batch an epoch: Lightning does not resume the place within one
        loader = torch.utils.data.DataLoader(rows()[:4], batch_size=4)
        trainer.fit(module, loader, ckpt_path=resume)
        return trainer, module.model

    _, through = train(STEPS)
    first, _ = train(3)
    first.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = train(STEPS, resume=tmp_path / "half.ckpt")
    assert same(through, resumed)
    assert not same(through, Model())
