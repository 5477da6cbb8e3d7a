//! Both servers do the same steps, one at a time, and everything that they say is compared.
//!
//! - `side`: a server and the clients' connections to it.
//! - `half`: one server's end of a watch stream; `watching`: both, and what has to come.
//! - `special`: steps that are no calls; `contend`: two clients of which one waits for the other.
//!
//! A step is over when both have answered and a watch on everything has seen the step's revision on
//! both. So nothing has to be waited for by time.

mod contend;
mod half;
mod side;
mod special;
mod watching;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::join;
use tokio::time::sleep;

use mainstay_tests::schema::{self, inner, int};
use mainstay_tests::wire::Stream;

use self::half::Half;
use self::side::Side;
use self::watching::{History, Watching, observe};
use crate::allowed::{self, Answer};
use crate::report::{Difference, say, told};
use crate::step::{CLIENTS, Kind, Step};
use crate::symbols::{self, Symbol};

/// How often an answer that may still change is asked for again, and the pause before.
const SETTLES_IN: usize = 40;
const SETTLING: Duration = Duration::from_millis(25);

/// Stands for the id of a lease that was not granted.
const NO_LEASE: i64 = 98;

/// A pair of servers in the midst of a script. The first is the one that is right.
pub(crate) struct Run {
    sides: [Side; 2],
    observers: Watching,
    watchings: [Option<Watching>; CLIENTS],
    history: History,
    now: i64,
    compacted: i64,
    /// A compaction may still be at work in the background.
    compacting: bool,
    /// A watch that began in the past may still be on its way to the present.
    lagging: bool,
    /// Each step is printed, and how etcd answered it.
    shows_steps: bool,
}

impl Run {
    /// Starts a pair of servers.
    pub(crate) async fn start(reference: &Path, subject: &Path, shows_steps: bool) -> Result<Self> {
        let (one, other) = join!(Side::start("etcd", reference), Side::start("under test", subject));
        let sides = [one?, other?];
        let mut halves = Vec::new();
        for side in &sides {
            halves.push(Half::new(side.observer_stream().await?));
        }
        let halves: [Half; 2] = halves.try_into().map_err(|_| anyhow::anyhow!("there are two sides"))?;
        let mut observers = Watching::new(halves);
        observers.observe_everything(sides.each_ref().map(|side| &side.choices)).await.map_err(|difference| {
            anyhow::anyhow!("a new server is not watched as another: {}", difference.lines.join("; "))
        })?;
        Ok(Self {
            sides,
            observers,
            watchings: Default::default(),
            history: History::new(),
            now: 1,
            compacted: 0,
            compacting: false,
            lagging: false,
            shows_steps,
        })
    }

    /// Does a step on both.
    pub(crate) async fn step(&mut self, step: &Step) -> Result<(), Difference> {
        if self.shows_steps {
            say(&format!("now {} compacted {}: {step}", self.now, self.compacted));
        }
        let done = match &step.kind {
            Kind::Special => self.special(step).await,
            Kind::Method(method) => {
                let requests = self.resolved(&step.request);
                match schema::short_name(method).as_str() {
                    "Watch.Watch" => self.watch(step.client, &requests).await,
                    "Lease.LeaseKeepAlive" => self.renew(step.client, method, &requests).await,
                    _ => self.call(step.client, method, &requests).await.map(drop),
                }
            }
        };
        match done {
            Ok(()) => self.observe().await,
            Err(difference) => Err(self.with_deaths(difference)),
        }
    }

    /// Compares what is left to compare at the end of a script.
    pub(crate) async fn finish(&mut self) -> Result<(), Difference> {
        self.settle().await?;
        for client in 0..CLIENTS {
            self.hang_up(client).await?;
        }
        Ok(())
    }

    /// A request as each side gets it.
    fn resolved(&self, request: &DynamicMessage) -> [DynamicMessage; 2] {
        self.sides.each_ref().map(|side| {
            let mut request = request.clone();
            symbols::resolve(&mut request, &|symbol| match symbol {
                Symbol::Now(offset) => self.now + offset,
                Symbol::Compacted(offset) => self.compacted + offset,
                Symbol::Lease(place) => usize::try_from(place)
                    .ok()
                    .and_then(|place| side.choices.leases.get(place).copied())
                    .unwrap_or(NO_LEASE),
                Symbol::Member => side.choices.member.cast_signed(),
            });
            request
        })
    }

    /// Calls a method on both, compares, and remembers what later steps need. Returns the reference's answer.
    async fn call(
        &mut self,
        client: usize,
        method: &MethodDescriptor,
        requests: &[DynamicMessage; 2],
    ) -> Result<Answer, Difference> {
        let name = schema::short_name(method);
        if name == "KV.Compact" {
            // Whoever lags behind a compaction is told so, and who lags is open.
            self.settle().await?;
        }
        let mut tries = 0;
        let [one, other] = loop {
            let (one, other) = join!(
                self.sides[0].call(client, method, &requests[0]),
                self.sides[1].call(client, method, &requests[1])
            );
            let mut answers = [one, other];
            self.learn(&name, client, requests, &answers);
            for (answer, (side, request)) in answers.iter_mut().zip(self.sides.iter().zip(requests)) {
                allowed::take_out(&name, request, &side.choices, answer);
            }
            match Difference::of_answers(&name, &answers) {
                Ok(()) => break answers,
                Err(difference) => {
                    tries += 1;
                    if tries > SETTLES_IN || !allowed::may_settle(&name, self.compacting) {
                        return Err(difference);
                    }
                    sleep(SETTLING).await;
                }
            }
        };
        drop(other);
        if self.shows_steps {
            say(&format!("    {}", told(&one)));
        }
        Ok(one)
    }

    /// Remembers what the servers chose and where they are.
    fn learn(&mut self, name: &str, client: usize, requests: &[DynamicMessage; 2], answers: &[Answer; 2]) {
        for (side, answer) in self.sides.iter_mut().zip(answers) {
            let Some(response) = answer.messages.first() else { continue };
            match name {
                "Lease.LeaseGrant" if int(&requests[0], "ID") == 0 => side.choices.leases.push(int(response, "ID")),
                "Auth.Authenticate" => {
                    let token = response.get_field_by_name("token");
                    side.take_token(client, token.as_ref().and_then(|token| token.as_str()).unwrap_or_default());
                }
                _ => {}
            }
        }
        let Some(response) = answers[0].messages.last() else { return };
        if let Some(header) = inner(response, "header") {
            self.now = self.now.max(int(&header, "revision"));
        }
        if name == "KV.Compact" {
            self.compacted = self.compacted.max(int(&requests[0], "revision"));
            self.compacting = !schema::flag(&requests[0], "physical");
        }
    }

    async fn renew(
        &mut self,
        client: usize,
        method: &MethodDescriptor,
        requests: &[DynamicMessage; 2],
    ) -> Result<(), Difference> {
        let [one, other] = &mut self.sides;
        let (one, other) = join!(one.renew(client, method, &requests[0]), other.renew(client, method, &requests[1]));
        let name = schema::short_name(method);
        let mut answers = [one, other];
        for (answer, (side, request)) in answers.iter_mut().zip(self.sides.iter().zip(requests)) {
            allowed::take_out(&name, request, &side.choices, answer);
        }
        Difference::of_answers(&name, &answers)
    }

    async fn watch(&mut self, client: usize, requests: &[DynamicMessage; 2]) -> Result<(), Difference> {
        if self.watchings[client].as_ref().is_some_and(|watching| watching.closed) {
            self.hang_up(client).await?;
        }
        if self.watchings[client].is_none() {
            let (one, other) = join!(self.sides[0].watch_stream(client), self.sides[1].watch_stream(client));
            self.watchings[client] = Some(both([one, other])?);
        }
        let start = inner(&requests[0], "create_request").map_or(0, |create| int(&create, "start_revision"));
        if inner(&requests[0], "progress_request").is_some() {
            self.catch_up().await?;
        }
        self.lagging |= start > 0 && start <= self.now;
        let choices = self.sides.each_ref().map(|side| &side.choices);
        let Some(watching) = &mut self.watchings[client] else { return Ok(()) };
        if !watching.request(requests, choices, &self.history, self.compacted).await? {
            self.watchings[client] = None;
        }
        Ok(())
    }

    /// Ends the watch stream of a client, after all of it was compared.
    async fn hang_up(&mut self, client: usize) -> Result<(), Difference> {
        match self.watchings[client].take() {
            Some(mut watching) => watching.finish(self.sides.each_ref().map(|side| &side.choices), &self.history).await,
            None => Ok(()),
        }
    }

    /// Waits until no watch is behind any more, also if it has nothing to deliver: those that began in
    /// the past are brought to the present together, so one more that has something tells of the others.
    async fn catch_up(&mut self) -> Result<(), Difference> {
        if self.lagging && self.now > 1 {
            let (one, other) = join!(self.sides[0].root_stream(), self.sides[1].root_stream());
            let mut marker = both([one, other])?;
            let choices = self.sides.each_ref().map(|side| &side.choices);
            marker.mark(choices, self.now).await?;
            self.lagging = false;
        }
        Ok(())
    }

    /// Waits until all watches have delivered what they have to.
    async fn settle(&mut self) -> Result<(), Difference> {
        self.catch_up().await?;
        let choices = self.sides.each_ref().map(|side| &side.choices);
        for watching in self.watchings.iter_mut().flatten() {
            watching.settle(choices, &self.history).await?;
        }
        Ok(())
    }

    /// Waits until the step's revision was seen, and compares what else has arrived.
    async fn observe(&mut self) -> Result<(), Difference> {
        let choices = self.sides.each_ref().map(|side| &side.choices);
        observe(&mut self.observers, choices, &mut self.history, self.now).await?;
        for watching in self.watchings.iter_mut().flatten() {
            watching.compare(choices)?;
        }
        Ok(())
    }

    /// Says which server is no longer there.
    fn with_deaths(&mut self, mut difference: Difference) -> Difference {
        for side in &mut self.sides {
            if !side.server.is_alive() {
                difference.kind = format!("{} has ended", side.name);
                difference.lines.push(format!("{} has ended:\n{}", side.name, side.server.log_tail()));
            }
        }
        difference
    }
}

/// A watch stream, where both could be opened.
fn both(opened: [Result<Stream>; 2]) -> Result<Watching, Difference> {
    let texts = opened.each_ref().map(|opened| opened.as_ref().err().map(ToString::to_string).unwrap_or_default());
    let [Ok(one), Ok(other)] = opened else { return Err(Difference::between("Watch.Watch: no stream", texts)) };
    Ok(Watching::new([Half::new(one), Half::new(other)]))
}
