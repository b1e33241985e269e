//! The engine's training events -> the stage's: progress, curves, samples.

use qlora::train::TrainEvent;

use crate::base::Base;
use crate::contract::{Context, StageEvent};

/// Translates one run's events.
pub(super) struct Telling<'a> {
    ctx: &'a Context<'a>,
    base: &'a Base,
    steps: u64,
}

impl<'a> Telling<'a> {
    /// For one run.
    pub(super) fn new(ctx: &'a Context<'a>, base: &'a Base) -> Self {
        Self {
            ctx,
            base,
            steps: 0,
        }
    }

    /// Tells one event.
    pub(super) fn tell(&mut self, event: TrainEvent) {
        match event {
            TrainEvent::Started {
                steps,
                trainable,
                resumed,
                weight_bytes,
                adapter_bytes,
                activation_bytes,
                plan,
                ..
            } => {
                self.steps = steps;
                let mib = |bytes: u64| bytes >> 20;
                self.ctx.log(format!(
                    "{steps} steps, {trainable} trainable parameters; memory planned: weights {} MiB, adapter and optimizer {} MiB, activations up to {} MiB",
                    mib(weight_bytes), mib(adapter_bytes), mib(activation_bytes)
                ));
                if plan.rows > 0 {
                    self.ctx.log(format!("at most: {plan}"));
                }
                if resumed > 0 {
                    self.ctx.log(format!("resumed after step {resumed}"));
                }
                self.ctx.progress("training", resumed, Some(steps), "steps");
            }
            TrainEvent::Fallback(fallback) => self.ctx.warn(
                "train::out-of-memory",
                format!(
                    "the card refused {} MiB: from step {} on {} (the same gradient, summed in another order)",
                    fallback.refused >> 20,
                    fallback.step,
                    fallback.plan
                ),
            ),
            TrainEvent::Step {
                record,
                of,
                seconds,
            } => {
                self.metric("train.loss", record.step, record.loss);
                self.metric("train.lr", record.step, record.lr);
                self.metric(
                    "train.tokens_per_second",
                    record.step,
                    record.tokens as f64 / seconds.max(1e-9),
                );
                self.ctx.log(format!(
                    "step {}/{of}  loss {:.4}  lr {:.2e}  grad {:.3}  {} tokens ({} unshared)  {seconds:.2} s",
                    record.step, record.loss, record.lr, record.grad_norm, record.tokens, record.separate_tokens
                ));
                self.ctx
                    .progress("training", record.step, Some(of), "steps");
            }
            TrainEvent::Validated { record, best, .. } => {
                self.metric("val.loss", record.step, record.loss);
                let mark = if best { " (best so far)" } else { "" };
                self.ctx.log(format!(
                    "held-out loss {:.4} after step {}{mark}",
                    record.loss, record.step
                ));
            }
            TrainEvent::Sample { name, ids, .. } => {
                let answer = self.base.decode(&ids);
                self.ctx.tell(StageEvent::Sample {
                    prompt: name,
                    answer,
                });
            }
            TrainEvent::PassedOver { path, why } => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let text = format!("the checkpoint `{name}` is passed over: {why}");
                self.ctx.warn("train::checkpoint", &text);
            }
            TrainEvent::Saved { step } => self.ctx.log(format!("checkpoint at step {step}")),
            _ => {}
        }
    }

    fn metric(&self, name: &str, step: u64, value: f64) {
        self.ctx.tell(StageEvent::Metric {
            name: name.to_owned(),
            step: Some(step),
            value,
        });
    }
}
