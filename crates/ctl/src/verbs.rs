//! The verbs, one file each, and their dispatch.

pub(crate) mod backends;
pub(crate) mod claims;
pub(crate) mod completion;
pub(crate) mod down;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod index;
pub(crate) mod init;
pub(crate) mod kill;
pub(crate) mod kv;
pub(crate) mod leave;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod members;
pub(crate) mod node;
pub(crate) mod routes;
pub(crate) mod search;
pub(crate) mod set_service;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod validate;
pub(crate) mod version;

use crate::cli::{Cli, Verb};
use crate::exit::Exit;
use crate::hints::{self, Meant};
use crate::interrupt::Interrupt;
use crate::out::Out;
use crate::reach::Cx;
use crate::state::State;

/// Runs the verb of the command line.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    // COTERIE_AGENT applies to the next command too, so hints need not repeat it.
    match (&cli.cluster, &cli.agent) {
        (Some(cluster), _) => hints::set_meant(Meant::Cluster(cluster.clone())),
        (None, Some(agent)) => hints::set_meant(Meant::Agent(agent.clone())),
        (None, None) => {}
    }
    let cx = Cx {
        state: State::from_env()?,
        out: Out::new(cli.color),
        agent: cli.agent.or_else(hints::agent_from_env),
        cluster: cli.cluster,
    };
    let mut interrupt = Interrupt::new()?;
    // On ^C `up` undoes what it began, and some verbs of `kv` and `index` report how far they came; every other verb
    // may stop anywhere.
    match cli.verb {
        Verb::Up(args) => Box::pin(up::run(&args, &cx, &mut interrupt)).await,
        Verb::Kv(args) => Box::pin(kv::run(&args, &cx, &mut interrupt)).await,
        Verb::Index(args) => Box::pin(index::run(&args, &cx, &mut interrupt)).await,
        verb => interrupt.unless(Box::pin(dispatch(verb, &cx))).await,
    }
}

async fn dispatch(verb: Verb, cx: &Cx) -> anyhow::Result<Exit> {
    match verb {
        Verb::Up(_) | Verb::Kv(_) | Verb::Index(_) => unreachable!("handled by the caller"),
        Verb::Down(args) => down::run(&args, cx).await,
        Verb::Ls(args) => ls::run(&args, cx),
        Verb::Members(args) => members::run(&args, cx).await,
        Verb::Status(args) => status::run(&args, cx).await,
        Verb::SetService(args) => set_service::run(&args, cx).await,
        Verb::Drain(args) => drain::run(&args, cx).await,
        Verb::Leave(args) => leave::run(&args, cx).await,
        Verb::Start(args) => node::start(&args, cx).await,
        Verb::Stop(args) => node::stop(&args, cx).await,
        Verb::Restart(args) => node::restart(&args, cx).await,
        Verb::Kill(args) => kill::run(&args, cx).await,
        Verb::Logs(args) => logs::run(&args, cx).await,
        Verb::Events(args) => events::run(&args, cx).await,
        Verb::Spec(args) => spec::run(&args, cx).await,
        Verb::Backends(args) => backends::run(&args, cx).await,
        Verb::Claims(args) => claims::run(&args, cx).await,
        Verb::Routes(args) => routes::run(&args, cx).await,
        Verb::Search(args) => search::run(&args, cx).await,
        Verb::Validate(args) => validate::run(&args, cx).await,
        Verb::Init(args) => init::run(&args, cx).await,
        Verb::Completion(args) => completion::run(&args, cx),
        Verb::Version(args) => version::run(&args, cx).await,
    }
}
