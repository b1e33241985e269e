//! The listener for a terminal: finished things as lines above, one moving line for each
//! running stage below.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::listener::Listener;
use super::paint::Paint;
use super::story::{Setting, Story, moving};
use crate::event::{Envelope, Event};

/// Cells of a bar.
const CELLS: usize = 16;

/// Draws on the terminal.
pub struct Live {
    bars: MultiProgress,
    moving: BTreeMap<String, ProgressBar>,
    story: Story,
}

impl Live {
    /// Draws on standard output.
    pub fn new(setting: Setting) -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            moving: BTreeMap::new(),
            story: Story::new(Paint::for_stdout(), setting),
        }
    }

    fn start(&mut self, stage: &str) {
        self.begin(stage, stage);
    }

    /// A moving line called `own`, for `stage`.
    fn begin(&mut self, own: &str, stage: &str) {
        let style =
            ProgressStyle::with_template("  {spinner} {prefix}  {wide_msg}  {elapsed:.dim}")
                .expect("the template is well formed")
                .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "]);
        let bar = self.bars.add(ProgressBar::new_spinner().with_style(style));
        bar.set_prefix(self.story.name(stage));
        bar.enable_steady_tick(Duration::from_millis(120));
        self.moving.insert(own.to_owned(), bar);
    }

    fn stop(&mut self, stage: &str) {
        if let Some(bar) = self.moving.remove(stage) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn update(&self, stage: &str) {
        let (Some(bar), Some(progress)) = (self.moving.get(stage), self.story.running().get(stage))
        else {
            return;
        };
        let drawn = progress
            .share()
            .map(|share| format!("{}  ", cells(share)))
            .unwrap_or_default();
        let line = progress.line();
        let message = if line.is_empty() {
            self.story.paint.dim(progress.wrote())
        } else {
            format!("{drawn}{line}")
        };
        bar.set_message(message);
    }
}

fn cells(share: f64) -> String {
    let full = (share * CELLS as f64).round() as usize;
    format!("{}{}", "━".repeat(full), "╌".repeat(CELLS - full))
}

impl Listener for Live {
    fn hear(&mut self, told: &Envelope) {
        let lines = self.story.hear(told);
        match &told.event {
            Event::StagePulled { stage, .. } => self.stop(&format!("pull {stage}")),
            Event::StagePushed { stage, .. } => self.stop(&format!("push {stage}")),
            Event::StageDone { stage, .. }
            | Event::StageFailed { stage, .. }
            | Event::StageFresh { stage, .. }
            | Event::StagePeople { stage, .. }
            | Event::StageSkipped { stage, .. } => self.stop(stage),
            Event::RunFinished { .. } => {
                for (_, bar) in std::mem::take(&mut self.moving) {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        for line in lines {
            // A terminal that went away does not stop the run.
            let _gone = self.bars.suspend(|| super::screen::line(&line));
        }
        match &told.event {
            Event::StageStarted { stage, .. } => self.start(stage),
            Event::Stage { stage, .. } => self.update(stage),
            Event::RemoteProgress {
                stage,
                doing,
                bytes,
                total,
            } => {
                let own = format!("{doing} {stage}");
                if !self.moving.contains_key(&own) {
                    self.begin(&own, stage);
                }
                let share = *bytes as f64 / (*total).max(1) as f64;
                let text = format!("{}  {}", cells(share), moving(doing, *bytes, *total));
                self.moving[&own].set_message(text);
            }
            _ => {}
        }
    }
}
