//! What a running container answers to `crun-lite port` and `crun-lite net`, where
//! control socket and network meet.

use std::time::Duration;

use super::super::report::Report;
use super::duties;
use crate::config::EgressRules;
use crate::control::{Answer, Counter, Flow, Port, Request};
use crate::keeper::Keeper;
use crate::net::{self, Driver};

/// Does what `crun-lite port` and `crun-lite net` ask for.
pub(super) fn answer(driver: &mut Driver, keeper: &Keeper, request: Request) -> Answer {
    match request {
        Request::PortList => Answer::Ports(ports(driver)),
        Request::PortAdd(wanted) => {
            let publish = |listeners| {
                let published = driver.publish(listeners);
                // What could be done about it stands in files that this process may not open.
                published.map_err(|error| Report::new(&error, None).into_message())
            };
            match duties::bind(keeper, &wanted).and_then(publish) {
                Ok(()) => Answer::Ports(ports(driver)),
                Err(why) => Answer::Error(why),
            }
        }
        Request::PortRemove(unwanted) => match driver.unpublish(&unwanted) {
            Ok(()) => Answer::Ports(ports(driver)),
            Err(port) => Answer::Error(format!("{port} is not published")),
        },
        Request::NetFlows(from) => {
            let (flows, next) = driver.flows(from);
            Answer::Flows {
                flows: flows.iter().map(flow).collect(),
                next,
            }
        }
        Request::NetRules => Answer::Rules(driver.rules()),
        Request::NetRulesAdd(action, texts) => changed(driver.add_rules(action, &texts)),
        Request::NetRulesRemove(action, texts) => changed(driver.remove_rules(action, &texts)),
        Request::NetDefault(action) => Answer::Rules(driver.set_default(action)),
        Request::NetStats => {
            let counter = |figure: net::Figure| Counter {
                name: figure.name.to_owned(),
                help: figure.help.to_owned(),
                gauge: figure.gauge,
                value: figure.value,
            };
            Answer::Stats(driver.figures().into_iter().map(counter).collect())
        }
    }
}

fn changed(rules: Result<EgressRules, String>) -> Answer {
    rules.map_or_else(Answer::Error, Answer::Rules)
}

fn ports(driver: &Driver) -> Vec<Port> {
    let port = |(protocol, host, container_port)| Port {
        protocol,
        host,
        container_port,
    };
    driver.ports().into_iter().map(port).collect()
}

fn flow(info: &net::FlowInfo) -> Flow {
    let protocol = match info.protocol {
        net::Protocol::Tcp => "tcp",
        net::Protocol::Udp => "udp",
        net::Protocol::Echo => "icmp",
    };
    Flow {
        protocol: protocol.to_owned(),
        container: info.container,
        remote: info.remote,
        state: info.state.to_owned(),
        age: Duration::from_micros(info.age.total_micros()).as_secs_f64(),
        bytes_up: info.bytes_up,
        bytes_down: info.bytes_down,
    }
}
