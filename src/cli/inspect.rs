//! `crun-lite port` and `crun-lite net`: asking a running container.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::args::{ActionArg, ContainerArg, NetArgs, PortArgs, RuleArgs};
use super::{options, output};
use crate::config::{Action, EgressRules};
use crate::control::{Answer, Counter, Flow, Port, Request, ask};
use crate::error::Error;

/// Before each name that Prometheus sees.
const PREFIX: &str = "crun_lite_net_";

pub(super) fn port(args: PortArgs) -> Result<ExitCode, Error> {
    let (container, json, request) = match args {
        PortArgs::Ls { container, json } => (container, json, Request::PortList),
        PortArgs::Add { container, ports } => {
            (container, false, Request::PortAdd(options::ports(&ports)?))
        }
        PortArgs::Rm { container, ports } => (
            container,
            false,
            Request::PortRemove(options::ports(&ports)?),
        ),
    };
    let quiet = matches!(request, Request::PortRemove(_));
    match ask(&container.container, request)? {
        Answer::Ports(_) if quiet => {}
        Answer::Ports(ports) if json => as_json(&ports)?,
        Answer::Ports(ports) => output::print(&port_table(&ports))?,
        other => return Err(unexpected(&other)),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn net(args: NetArgs) -> Result<ExitCode, Error> {
    match args {
        NetArgs::Rules { container, json } => {
            let rules = rules(&container, Request::NetRules)?;
            if json {
                as_json(&rules)?;
            } else {
                output::print(&rule_table(&rules))?;
            }
        }
        NetArgs::Allow(args) => change_rules(Action::Allow, &args)?,
        NetArgs::Deny(args) => change_rules(Action::Deny, &args)?,
        NetArgs::Default { container, action } => {
            let action = match action {
                ActionArg::Allow => Action::Allow,
                ActionArg::Deny => Action::Deny,
            };
            rules(&container, Request::NetDefault(action))?;
        }
        NetArgs::Flows { container, json } => {
            let flows = all_flows(&container.container)?;
            if json {
                as_json(&flows)?;
            } else {
                output::print(&flow_table(&flows))?;
            }
        }
        NetArgs::Stats {
            container,
            json,
            prometheus,
        } => match ask(&container.container, Request::NetStats)? {
            Answer::Stats(counters) if json => {
                let values: BTreeMap<_, _> = counters
                    .iter()
                    .map(|counter| (&counter.name, counter.value))
                    .collect();
                as_json(&values)?;
            }
            Answer::Stats(counters) if prometheus => output::print(&exposition(&counters))?,
            Answer::Stats(counters) => output::print(&stats_table(&counters))?,
            other => return Err(unexpected(&other)),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn change_rules(action: Action, args: &RuleArgs) -> Result<(), Error> {
    let texts = options::rules(action, &args.rules)?;
    let request = if args.remove {
        Request::NetRulesRemove(action, texts)
    } else {
        Request::NetRulesAdd(action, texts)
    };
    rules(&args.container, request).map(drop)
}

fn rules(container: &ContainerArg, request: Request) -> Result<EgressRules, Error> {
    match ask(&container.container, request)? {
        Answer::Rules(rules) => Ok(rules),
        other => Err(unexpected(&other)),
    }
}

/// In the order in which they count.
fn rule_table(rules: &EgressRules) -> String {
    let mut text = String::new();
    for (action, rules) in [(Action::Deny, &rules.deny), (Action::Allow, &rules.allow)] {
        for rule in rules {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{action} {rule}");
        }
    }
    let _ = writeln!(text, "default {}", rules.default);
    text
}

/// All flows, page by page: the container has other things to do in between.
fn all_flows(container: &str) -> Result<Vec<Flow>, Error> {
    let mut all = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        match ask(container, Request::NetFlows(at))? {
            Answer::Flows { flows, next } => {
                all.extend(flows);
                // It only goes on: whatever answers, this comes to an end.
                from = next.filter(|next| *next > at);
            }
            other => return Err(unexpected(&other)),
        }
    }
    Ok(all)
}

fn unexpected(answer: &Answer) -> Error {
    tracing::debug!(?answer);
    Error::host(
        "understand the container",
        std::io::Error::from(std::io::ErrorKind::InvalidData),
    )
}

fn as_json(value: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_string(value)
        .map_err(|error| Error::host("write the answer as JSON", error))?;
    output::print(&format!("{json}\n"))
}

/// As `podman port`: the container's port, and where the host listens.
fn port_table(ports: &[Port]) -> String {
    let mut text = String::new();
    for port in ports {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}/{} -> {}",
            port.container_port, port.protocol, port.host
        );
    }
    text
}

fn flow_table(flows: &[Flow]) -> String {
    let head = ["PROTO", "CONTAINER", "REMOTE", "STATE", "AGE", "UP", "DOWN"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(flows.iter().map(|flow| {
        [
            flow.protocol.clone(),
            flow.container.to_string(),
            flow.remote.to_string(),
            flow.state.clone(),
            format!("{:.0}s", flow.age),
            flow.bytes_up.to_string(),
            flow.bytes_down.to_string(),
        ]
    }));
    columns(&rows)
}

fn stats_table(counters: &[Counter]) -> String {
    let rows: Vec<[String; 3]> = counters
        .iter()
        .map(|counter| {
            let help = counter.help.trim_end_matches('.').to_owned();
            [counter.name.clone(), counter.value.to_string(), help]
        })
        .collect();
    columns(&rows)
}

/// Left-aligned columns, two spaces apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The text format of Prometheus, version 0.0.4.
fn exposition(counters: &[Counter]) -> String {
    let mut text = String::new();
    for counter in counters {
        let name = format!("{PREFIX}{}", counter.name);
        let kind = if counter.gauge { "gauge" } else { "counter" };
        let _ = write!(
            text,
            "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {}\n",
            counter.help, counter.value
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_reads() {
        let counter = Counter {
            name: "flows".to_owned(),
            help: "Flows at present.".to_owned(),
            gauge: true,
            value: 7,
        };
        assert_eq!(
            exposition(&[counter]),
            "# HELP crun_lite_net_flows Flows at present.\n# TYPE crun_lite_net_flows gauge\n\
             crun_lite_net_flows 7\n"
        );
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "bcd", ""], ["ab", "c", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a   bcd\nab  c    d\n");
    }
}
