//! Greedy generation on the card, as generate.rs has it on the CPU: what all prompts start with is computed
//! once, keys and values are cached, finished rows leave the batch. The adapter stays beside the base.
//!
//! The most likely id wins; on a tie the lowest one. Like a training step, everything lies in one block, whose
//! size is found by running the same code without a card.

use kernels::decode;

use super::base::Base;
use super::decoder::{self, Contexts};
use super::engine::{fits, usable};
use super::exec::Exec;
use super::layer::Run;
use super::linear::{Scratch, SitePlan};
use super::memory::{Region, Rows, Store};
use super::pass::{Pass, Tokens};
use super::portion::{self, Hear, Portion};
use crate::error::{Error, Result};
use crate::nn::adapter::{Adapter, Site};
use crate::tensor::Matrix;
use crate::train::group_by_prefix;

/// Prompt ids (beyond the shared prefix) read at a time.
const PROMPT_TOKENS: usize = 4096;

/// How steps run; all ways give the same answers. For checks and measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Steps are recorded once and repeated.
    pub captured: bool,
    /// Four-bit weights are decoded inside of the products.
    pub narrow: bool,
}

impl Default for How {
    fn default() -> Self {
        Self {
            captured: true,
            narrow: true,
        }
    }
}

/// A base with an adapter, as they lie on the card.
pub(super) struct Tuned<'a> {
    pub(super) base: &'a Base,
    /// Per layer, in the order of [`Site::ALL`].
    pub(super) sites: &'a [SitePlan],
    /// The adapter's; empty without one.
    pub(super) values: Region,
    /// Bytes that the block may take.
    pub(super) limit: usize,
    pub(super) how: How,
}

/// Prompts that were checked, and what is asked of them.
pub(super) struct Asked<'a> {
    pub(super) prompts: &'a [Vec<u32>],
    pub(super) max_new: usize,
    pub(super) stop: &'a [u32],
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        tuned: &Tuned<'_>,
        prompts: &'a [Vec<u32>],
        max_new: usize,
        stop: &'a [u32],
    ) -> Result<Self> {
        let base = tuned.base;
        crate::generate::check(base.config.vocab, prompts)?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + max_new;
        if longest > base.positions {
            let what = format!(
                "answers reach {longest} ids, and the model was loaded for {}",
                base.positions
            );
            return Err(Error::Config {
                what,
                mend: "load it for longer rows".to_owned(),
            });
        }
        if decode::attention(base.config.head_dim, base.element).is_none() {
            return Err(Error::unsupported(
                "head_dim",
                base.config.head_dim,
                "on a GPU, heads are 64, 128 or 256 wide; answer on the CPU",
            ));
        }
        Ok(Self {
            prompts,
            max_new,
            stop,
        })
    }

    /// Members by shared prefix. The last id of a prompt must be read by the row itself: its hidden state
    /// predicts the answer.
    fn groups(&self) -> Vec<(usize, Vec<usize>)> {
        let starts: Vec<&[u32]> = self.prompts.iter().map(|p| &p[..p.len() - 1]).collect();
        group_by_prefix(&starts)
    }
}

/// What is done with a portion of the prompts that has been read, and with which of them.
type Each<'e> = dyn FnMut(&mut Exec<'_>, Portion<'_>, &[usize]) -> Result<()> + 'e;

impl<'a> Tuned<'a> {
    pub(super) fn plan(&self, layer: usize, site: Site) -> &'a SitePlan {
        &self.sites[layer * Site::ALL.len() + site as usize]
    }

    /// Whether a site's weights are decoded inside of its products with so many rows.
    pub(super) fn narrow(&self, layer: usize, site: Site, rows: usize) -> bool {
        self.how.narrow
            && self.base.element == kernels::Element::Bf16
            && decode::serves(rows, self.base.device.info().shared)
            && self.base.weight(layer, site).narrow().is_some()
    }

    pub(super) fn run<'r>(&'r self, exec: &mut Exec<'_>, pass: &'r Pass) -> Run<'r> {
        Run {
            base: self.base,
            sites: self.sites,
            decoded: None,
            values: self.values,
            grads: Region::default(),
            scratch: Scratch::take(exec, self.sites, pass.tokens, false),
            pass,
        }
    }

    fn counting(&self) -> Exec<'static> {
        Exec::counting(self.base.element, self.base.device.info().card())
    }

    /// Runs `work` without a card, then with a block of the size that it took.
    fn twice<T>(
        &self,
        block: &mut Option<Region>,
        mut work: impl FnMut(&mut Exec<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut count = self.counting();
        work(&mut count)?;
        let (device, bytes) = (&self.base.device, count.arena.peak());
        if bytes > self.limit {
            let what = format!(
                "answering takes {} MiB beside the model on {}",
                bytes >> 20,
                device.info().name
            );
            return Err(Error::device(
                what,
                "shorten the longest prompts or answers, or use a card with more memory",
            ));
        }
        device.bind()?;
        if block.is_none_or(|b| b.bytes < bytes) {
            if let Some(old) = block.take() {
                device.free(old);
            }
            *block = Some(device.allocate(bytes)?);
        }
        let block = block.expect("allocated above");
        let mut exec = Exec::on(device, self.base.element, block);
        let result = work(&mut exec)?;
        exec.check()?;
        Ok(result)
    }

    /// Answers to all prompts; `hear` hears each as it is finished.
    pub(super) fn answer(
        &self,
        block: &mut Option<Region>,
        asked: &Asked<'_>,
        hear: &mut Hear<'_>,
    ) -> Result<Vec<Vec<u32>>> {
        let mut answers = vec![Vec::new(); asked.prompts.len()];
        if asked.max_new == 0 {
            return Ok(answers);
        }
        let mut hear = |place: usize, ids: &[u32]| {
            answers[place] = ids.to_vec();
            hear(place, ids)
        };
        for (prefix, members) in asked.groups() {
            self.twice(block, |exec| {
                self.group(exec, asked, prefix, &members, &mut |exec, portion, _| {
                    portion.finish(exec, asked, &mut hear)
                })
            })?;
        }
        Ok(answers)
    }

    /// Reads the prefix, then portion after portion, and gives each to `each`.
    fn group(
        &self,
        exec: &mut Exec<'_>,
        asked: &Asked<'_>,
        prefix: usize,
        members: &[usize],
        each: &mut Each<'_>,
    ) -> Result<()> {
        let shared = &asked.prompts[members[0]][..prefix];
        let contexts = (prefix > 0).then(|| self.read_prefix(exec, shared));
        for members in self.portions(asked, prefix, members) {
            let mark = exec.arena.mark();
            let portion = Portion::read(exec, self, asked, &members, prefix, contexts.as_ref());
            each(exec, portion, &members)?;
            exec.arena.release(mark);
        }
        exec.check()
    }

    fn read_prefix(&self, exec: &mut Exec<'_>, ids: &[u32]) -> Contexts {
        let contexts = Contexts::take(exec, &self.base.config, ids.len(), false);
        let mark = exec.arena.mark();
        let pass = Pass::upload(exec, &Tokens::new(ids, 0, &[]), 0.0);
        let run = self.run(exec, &pass);
        decoder::forward_prefix(exec, &run, decoder::Keep::Nothing, &contexts);
        exec.arena.release(mark);
        contexts
    }

    /// Cuts a group so that neither rows nor prompt ids nor the cache grow too many.
    fn portions(&self, asked: &Asked<'_>, prefix: usize, members: &[usize]) -> Vec<Vec<usize>> {
        let config = &self.base.config;
        let token = 2 * config.kv_width() * config.layers * self.base.element.size();
        let cached = self.limit / 2 / token;
        let mut portions: Vec<Vec<usize>> = Vec::new();
        let (mut tokens, mut longest) = (0, 0);
        for member in members {
            let len = asked.prompts[*member].len() - prefix;
            let most = longest.max(len);
            match portions.last_mut() {
                Some(last)
                    if last.len() < decode::MOST_ROWS
                        && tokens + len <= PROMPT_TOKENS
                        && (last.len() + 1) * (most + asked.max_new) <= cached =>
                {
                    last.push(*member);
                    (tokens, longest) = (tokens + len, most);
                }
                _ => {
                    portions.push(vec![*member]);
                    (tokens, longest) = (len, len);
                }
            }
        }
        portions
    }
}

/// Answers prompts with a model on the card, with or without an adapter.
pub struct Generator {
    /// Taken back by [`Generator::into_base`].
    held: Option<Base>,
    store: Store,
    sites: Vec<SitePlan>,
    values: Region,
    block: Option<Region>,
    /// How steps run.
    pub how: How,
}

impl Generator {
    /// A generator over the base alone, or with `adapter` on it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the adapter is for another model; [`Error::Unsupported`] for one that a card does not
    /// take; [`Error::Device`].
    pub fn new(base: Base, adapter: Option<&Adapter>) -> Result<Self> {
        if let Some(adapter) = adapter {
            fits(&base, adapter)?;
        }
        base.device.bind()?;
        let sites = SitePlan::all(&base, adapter);
        let mut store = Store::new();
        let values = match adapter {
            Some(adapter) => store.upload(&base.device, adapter.values())?,
            None => Region::default(),
        };
        Ok(Self {
            held: Some(base),
            store,
            sites,
            values,
            block: None,
            how: How::default(),
        })
    }

    /// The base and its card.
    pub fn base(&self) -> &Base {
        self.held.as_ref().expect("given back only by value")
    }

    /// Gives the base back, for another adapter.
    pub fn into_base(mut self) -> Base {
        self.release();
        self.held.take().expect("given back once")
    }

    /// Bytes of the card in use: weights and adapter, and the block of the last answers.
    pub fn bytes(&self) -> (usize, usize) {
        (
            self.base().bytes() + self.store.bytes(),
            self.block.map_or(0, |b| b.bytes),
        )
    }

    /// Up to `max_new` ids after each prompt, ending before the first id of `stop`.
    ///
    /// # Errors
    /// [`Error::Config`] for prompts that the model cannot read; [`Error::NonFinite`]; [`Error::Device`].
    pub fn generate(
        &mut self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        self.generate_each(prompts, max_new, stop, &mut |_, _| true)
    }

    /// The same; `done` hears each answer as it is finished, with its prompt's place, and ends everything by
    /// returning false.
    ///
    /// # Errors
    /// As [`Generator::generate`], and [`Error::Cancelled`].
    pub fn generate_each(
        &mut self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
        done: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>> {
        self.with_block(|tuned, block| {
            let asked = Asked::new(tuned, prompts, max_new, stop)?;
            tuned.answer(block, &asked, done)
        })
    }

    /// f32 logits after each prompt, one row each, by reading all of it in one pass: for checks.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn next_logits(&mut self, prompts: &[Vec<u32>]) -> Result<Matrix> {
        self.with_block(|tuned, block| {
            let asked = Asked::new(tuned, prompts, 0, &[])?;
            let own: Vec<&[u32]> = asked.prompts.iter().map(Vec::as_slice).collect();
            tuned.twice(block, |exec| {
                let logits = portion::read(exec, tuned, &own, 0, None, None);
                download(exec, logits)
            })
        })
    }

    /// The same by steps: all but the last `fed` ids are read in one pass, the rest one after the other.
    ///
    /// # Errors
    /// As [`Generator::generate`]; prompts must be longer than `fed`.
    pub fn stepped_logits(&mut self, prompts: &[Vec<u32>], fed: usize) -> Result<Matrix> {
        let starts: Vec<Vec<u32>> = prompts
            .iter()
            .map(|p| p[..p.len().saturating_sub(fed)].to_vec())
            .collect();
        self.with_block(|tuned, block| {
            let asked = Asked::new(tuned, &starts, fed + 1, &[])?;
            let vocab = tuned.base.config.vocab;
            let mut all = Matrix::zeros(prompts.len(), vocab);
            for (prefix, members) in asked.groups() {
                tuned.twice(block, |exec| {
                    tuned.group(
                        exec,
                        &asked,
                        prefix,
                        &members,
                        &mut |exec, portion, members| {
                            for behind in (1..=fed).rev() {
                                let next = members.iter().map(|m| &prompts[*m]);
                                let ids: Vec<u32> = next.map(|p| p[p.len() - behind]).collect();
                                portion.feed(exec, &ids);
                            }
                            let logits = download(exec, portion.step.logits)?;
                            for (i, member) in members.iter().enumerate() {
                                all.row_mut(*member).copy_from_slice(logits.row(i));
                            }
                            Ok(())
                        },
                    )
                })?;
            }
            Ok(all)
        })
    }

    fn with_block<T>(
        &mut self,
        work: impl FnOnce(&Tuned<'_>, &mut Option<Region>) -> Result<T>,
    ) -> Result<T> {
        let mut block = self.block.take();
        let base = self.base();
        let tuned = Tuned {
            base,
            sites: &self.sites,
            values: self.values,
            limit: usable(&base.device).saturating_sub(base.bytes() + self.store.bytes()),
            how: self.how,
        };
        let result = work(&tuned, &mut block);
        self.block = block;
        result
    }

    fn release(&mut self) {
        if let Some(base) = &self.held {
            if let Some(block) = self.block.take() {
                base.device.free(block);
            }
            self.store.free(&base.device);
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.release();
    }
}

/// Zeros where there is no card.
fn download(exec: &mut Exec<'_>, logits: Rows) -> Result<Matrix> {
    exec.check()?;
    let mut values = vec![0.0f32; logits.rows * logits.cols];
    if let Some(device) = exec.device {
        device.download(logits.region(), &mut values)?;
    }
    Ok(Matrix::new(logits.rows, logits.cols, values))
}
