//! What a stage reads that is made of its inputs and shared with others: taken from the store, or made and kept
//! there under a key of its own by whoever needs it first.
//!
//! Promises: made once, however many stages, cells and processes want it at a time; what cannot be made costs time, not
//! the stage, which does without. Nothing of it is planned: a run that does nothing never comes here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cache::{Digest, KeyLock, KeyParts, Made, Record, Tree};
use stages::contract::{Derived, WorkerRequest, canonical};
use stages::{Outcome, Params, StageError, StageEvent};
use tokio::sync::watch;
use tokio::time::sleep;

use super::commit;
use super::executor::{LOCK_PAUSE, Voice, already, blocking, run};
use super::job::{Failure, Job, Message};
use super::log::Log;
use super::prepare::{self, Prepared, stored};
use super::process::{Program, Stop};
use super::worker;
use crate::config::Action;
use crate::plan::{Item, key};

/// One thing to be made, or found.
struct Order {
    wanted: Derived,
    params: Params,
    item: Item,
    parts: KeyParts,
    key: Digest,
}

/// Everything that the stage derives, by name.
pub(super) async fn all(
    job: &Arc<Job>,
    voice: &Voice,
    log: &mut Log,
    stop: &watch::Receiver<Stop>,
) -> Result<BTreeMap<String, Tree>, Failure> {
    let mut found = BTreeMap::new();
    for order in orders(job) {
        let name = order.wanted.name;
        match one(job, Arc::new(order), voice, log, stop).await {
            Ok(tree) => {
                found.insert(name.to_owned(), tree);
            }
            Err(Failure::Cancelled) => return Err(Failure::Cancelled),
            Err(Failure::Error(error, _)) => voice.tell(Message::Notice(
                "derived::missing",
                format!(
                    "`{}` makes its {name} itself, for they could not be kept: {}",
                    job.spec().id,
                    error.message
                ),
            )),
        }
    }
    Ok(found)
}

fn orders(job: &Job) -> Vec<Order> {
    let Action::Builtin { stage, params } = &job.spec().action else {
        return Vec::new();
    };
    let orders = stage.derives(params).into_iter().map(|wanted| {
        let [item] = job.inputs.get(wanted.of)?.as_slice() else {
            return None;
        };
        let params = canonical(wanted.maker.fields(), &wanted.params).ok()?;
        let parts = key::derived(wanted.maker, &params, wanted.of, &item.tree);
        Some(Order {
            key: parts.digest(),
            item: item.clone(),
            parts,
            params,
            wanted,
        })
    });
    orders.flatten().collect()
}

async fn one(
    job: &Arc<Job>,
    order: Arc<Order>,
    voice: &Voice,
    log: &mut Log,
    stop: &watch::Receiver<Stop>,
) -> Result<Tree, Failure> {
    let kind = order.wanted.maker.kind();
    let lock = lock(job, &order, voice, log, stop.clone()).await?;
    if let Some(record) = already(job, &order.key)? {
        log.heading(&format!("{kind} of `{}`: kept", order.wanted.of));
        job.store.used(&record);
        return product(&order, &record);
    }
    tell(
        voice,
        log,
        &format!("making {kind} of `{}`", order.wanted.of),
    );
    let started = jiff::Timestamp::now().to_string();
    let began = Instant::now();
    let own = Arc::clone(&order);
    let prepared = blocking(job, move |job| lay_out(job, &own)).await?;
    let (outcome, prepared) = run(job, prepared, voice, log, stop.clone()).await?;
    let millis = began.elapsed().as_millis() as u64;
    let made = Made {
        started,
        millis,
        host: super::host(),
        program: super::PROGRAM.to_owned(),
        stage: kind.to_owned(),
        ..Made::default()
    };
    // Whoever was frozen for long may have lost it.
    let held = lock.check();
    held.map_err(|error| Failure::Error(stored(&error), 0))?;
    let own = Arc::clone(&order);
    let record = blocking(job, move |job| keep(job, &own, &prepared, &outcome, made)).await?;
    tell(
        voice,
        log,
        &format!(
            "made {kind} of `{}` in {millis} ms; kept for every stage that reads it",
            order.wanted.of
        ),
    );
    product(&order, &record)
}

fn tell(voice: &Voice, log: &mut Log, text: &str) {
    log.heading(text);
    voice.tell(Message::Said(StageEvent::Log {
        text: text.to_owned(),
    }));
}

/// Waits for whoever makes it. Slots stay held: it is not for long, and then they are needed.
async fn lock(
    job: &Job,
    order: &Order,
    voice: &Voice,
    log: &mut Log,
    mut stop: watch::Receiver<Stop>,
) -> Result<KeyLock, Failure> {
    let mut told = false;
    loop {
        match job.store.try_lock(&order.key) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) => {}
            Err(error) => return Err(Failure::Error(stored(&error), 0)),
        }
        if !std::mem::replace(&mut told, true) {
            let holder = job.store.lock_holder(&order.key);
            let who = holder.map_or(String::new(), |h| format!(" by process {}", h.pid));
            let kind = order.wanted.maker.kind();
            tell(
                voice,
                log,
                &format!("{kind} of `{}` is being made{who}", order.wanted.of),
            );
        }
        tokio::select! {
            () = sleep(LOCK_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop > Stop::No) => return Err(Failure::Cancelled),
        }
    }
}

/// The maker's folder, input and request. Blocks.
fn lay_out(job: &Job, order: &Order) -> Result<Prepared, StageError> {
    let maker = order.wanted.maker;
    let scratch = job.store.scratch().map_err(|error| stored(&error))?;
    let place = scratch.path().join(&order.item.place);
    prepare::view(job, &order.item, &place)?;
    let own = |name: &str| prepare::folder(&scratch.path().join(name));
    let output = own("output")?;
    let request = WorkerRequest {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        kind: maker.kind().to_owned(),
        version: maker.version(),
        params: order.params.given().clone(),
        inputs: BTreeMap::from([(order.wanted.of.to_owned(), vec![place])]),
        derived: BTreeMap::new(),
        output: output.clone(),
        checkpoint: own("checkpoint")?,
        keep: own("keep")?,
        seed: 0,
        threads: job.threads,
        pin: None,
        network: false,
    };
    let mut env = prepare::environment(job, &[], std::iter::empty())?;
    env.push(("RAYON_NUM_THREADS".to_owned(), job.threads.to_string()));
    let products = maker.products().iter();
    Ok(Prepared {
        command: None,
        products: products
            .map(|product| (product.name.to_owned(), output.join(product.path)))
            .collect(),
        program: Program {
            line: vec![worker::find()?.display().to_string()],
            folder: scratch.path().to_owned(),
            env,
            input: serde_json::to_string(&request).expect("a request is plain data"),
            limit: job.spec().limits.timeout,
        },
        _scratch: scratch,
    })
}

/// Takes what was made into the store. Blocks.
fn keep(
    job: &Job,
    order: &Order,
    prepared: &Prepared,
    outcome: &Outcome,
    made: Made,
) -> Result<Record, StageError> {
    let record = Record {
        key: order.key,
        parts: order.parts.clone(),
        outputs: commit::adopt(job, prepared)?,
        outcome: outcome.kept(),
        made,
    };
    job.store.commit(&record).map_err(|error| stored(&error))?;
    Ok(record)
}

fn product(order: &Order, record: &Record) -> Result<Tree, Failure> {
    let name = order.wanted.maker.products()[0].name;
    record.outputs.get(name).cloned().ok_or_else(|| {
        let error = StageError::new(
            "derived::empty",
            format!("a record without `{name}`"),
            "delete the record, or report this",
        );
        Failure::Error(error, 0)
    })
}
