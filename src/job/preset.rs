//! `provider:`, spelled out: what mail providers say about their servers, and what people need to
//! hear when a login or a sender is refused there. Only what a provider documents is here; limits
//! that depend on an account (so many a day) are words, not a pace.

use std::time::Duration;

use crate::measure::Rate;

use super::TlsMode;

/// What is known of a provider.
#[derive(Debug)]
pub struct Preset {
    /// Its names; the first is the one we print.
    pub names: &'static [&'static str],
    /// How letters are submitted there.
    pub smtp: Option<Server>,
    /// How a mailbox is read there.
    pub pop3: Option<Server>,
    /// The login name that all its customers share.
    pub user: Option<&'static str>,
    /// What stands before the login name at POP3.
    pub pop3_prefix: Option<&'static str>,
    /// Where it gives access tokens for refresh tokens (OAuth 2.0).
    pub token_url: Option<&'static str>,
    /// How many connections it bears.
    pub connections: Option<usize>,
    /// After how many letters it closes a connection.
    pub messages_per_connection: Option<u32>,
    /// How fast it takes letters: so many in so many seconds.
    pub rate: Option<(u32, u64)>,
    /// What a login needs.
    pub login: &'static str,
    /// What a sender needs.
    pub sender: Option<&'static str>,
    /// Why a mailbox may seem too small.
    pub listing: Option<&'static str>,
}

/// A host of a provider. `{region}` in it is `region:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// The host name.
    pub host: &'static str,
    /// The port.
    pub port: u16,
    /// How TLS begins.
    pub tls: TlsMode,
    /// The region when none is given, for hosts that have one.
    pub region: Option<&'static str>,
}

impl Preset {
    /// The pace it takes, if it says one.
    pub fn rate(&self) -> Option<Rate> {
        self.rate.map(|(count, seconds)| Rate { count, per: Duration::from_secs(seconds) })
    }
}

/// The preset of a name, in any case: `gmail`, `qq`, `163`.
pub fn find(name: &str) -> Option<&'static Preset> {
    let name = name.trim().to_lowercase();
    ALL.iter().find(|preset| preset.names.contains(&&*name))
}

/// All names, for "did you mean".
pub fn names() -> Vec<&'static str> {
    ALL.iter().flat_map(|preset| preset.names).copied().collect()
}

/// What to say when a provider refuses a login.
pub fn login_hint(provider: &str) -> Option<&'static str> {
    find(provider).map(|preset| preset.login)
}

/// What to say when a provider refuses a sender.
pub fn sender_hint(provider: &str) -> Option<&'static str> {
    find(provider).and_then(|preset| preset.sender)
}

/// What to say when a mailbox lists fewer messages than its owner sees.
pub fn listing_hint(provider: &str) -> Option<&'static str> {
    find(provider).and_then(|preset| preset.listing)
}

/// What to say when a provider is not named but its host is.
pub fn of_host(host: &str) -> Option<&'static Preset> {
    let host = host.trim_end_matches('.').to_lowercase();
    let fits = |server: &Option<Server>| {
        server.is_some_and(|server| match server.host.split_once("{region}") {
            Some((before, behind)) => {
                host.len() > before.len() + behind.len() && host.starts_with(before) && host.ends_with(behind)
            }
            None => server.host == host,
        })
    };
    ALL.iter().find(|preset| fits(&preset.smtp) || fits(&preset.pop3))
}

const fn implicit(host: &'static str, port: u16) -> Option<Server> {
    Some(Server { host, port, tls: TlsMode::Implicit, region: None })
}

const fn starttls(host: &'static str) -> Option<Server> {
    Some(Server { host, port: 587, tls: TlsMode::StartTls, region: None })
}

/// A provider of whom nothing is known yet.
const NOBODY: Preset = Preset {
    names: &[],
    smtp: None,
    pop3: None,
    user: None,
    pop3_prefix: None,
    token_url: None,
    connections: None,
    messages_per_connection: None,
    rate: None,
    login: "",
    sender: None,
    listing: None,
};

/// What NetEase's services have in common.
const NETEASE: Preset = Preset {
    connections: Some(1),
    messages_per_connection: Some(50),
    login: "NetEase takes no account password here: turn POP3/SMTP on in the web mail's settings \
            (设置 → POP3/SMTP/IMAP) and use the authorisation code (授权码) it shows",
    sender: Some(
        "the From address must be the account that logs in (553 \"Mail from must equal authorized user\", \
             554 DT:SUM); 554 DT:SPM and 550 RP:TRC speak of what is sent and how much",
    ),
    listing: Some(
        "the web mail's settings (设置 → POP3/SMTP/IMAP) say whether POP3 shows all mail or \
             only that of the last 30 days (收取最近30天邮件 / 收取全部邮件)",
    ),
    ..NOBODY
};

const QQ_LISTING: &str =
    "QQ Mail's settings (设置 → 账号 → 收取选项) say how far back POP3 looks, and whether it sees folders";

/// In the order of the documentation.
static ALL: &[Preset] = &[
    Preset {
        names: &["gmail", "google"],
        smtp: starttls("smtp.gmail.com"),
        pop3: implicit("pop.gmail.com", 995),
        // Without it each message is shown to one client once; with it the last 30 days to all.
        pop3_prefix: Some("recent:"),
        token_url: Some("https://oauth2.googleapis.com/token"),
        connections: Some(3),
        messages_per_connection: Some(100),
        login: "Gmail takes no account password here: turn 2-Step Verification on and make an app password \
                (myaccount.google.com/apppasswords), or give a `token` with `mechanism: xoauth2`",
        sender: Some(
            "Gmail sends from the account's own address or an alias confirmed under Settings → Accounts → \
             \"Send mail as\"; about 500 letters a day (2000 with Workspace), then code 5.4.5",
        ),
        listing: Some(
            "Gmail shows POP3 only what its settings allow (Forwarding and POP/IMAP → Enable POP for all mail); \
             with `recent:` before the login name it lists the last 30 days whatever was fetched before",
        ),
        ..NOBODY
    },
    Preset {
        names: &["outlook", "hotmail", "live", "msn"],
        smtp: starttls("smtp-mail.outlook.com"),
        pop3: implicit("outlook.office365.com", 995),
        token_url: Some("https://login.microsoftonline.com/consumers/oauth2/v2.0/token"),
        connections: Some(2),
        rate: Some((30, 60)),
        login: "Outlook.com takes no password here since September 2024: give a `token` with `mechanism: xoauth2`",
        sender: Some("the From address must be the account that logs in, or one of its aliases"),
        listing: Some("POP3 is off until it is turned on under Settings → Mail → Forwarding and IMAP"),
        ..NOBODY
    },
    Preset {
        names: &["office365", "microsoft365", "o365", "exchange-online"],
        smtp: starttls("smtp.office365.com"),
        pop3: implicit("outlook.office365.com", 995),
        token_url: Some("https://login.microsoftonline.com/organizations/oauth2/v2.0/token"),
        // Exchange Online answers 4.3.2 to a fourth connection and 5.2.2/4.2.0 above thirty a minute.
        connections: Some(3),
        rate: Some((30, 60)),
        login: "Microsoft 365 needs \"Authenticated SMTP\" turned on for the mailbox, and a `token` with \
                `mechanism: xoauth2` wherever basic authentication is off (5.7.139)",
        sender: Some(
            "the login needs \"Send As\" for the From address (5.7.60); 10000 recipients a day at most",
        ),
        listing: Some("POP3 is turned on for each mailbox by the administrator"),
        ..NOBODY
    },
    Preset {
        names: &["qq", "qqmail", "foxmail"],
        smtp: implicit("smtp.qq.com", 465),
        pop3: implicit("pop.qq.com", 995),
        connections: Some(1),
        messages_per_connection: Some(50),
        login: "QQ Mail takes no account password here: turn POP3/SMTP on (设置 → 账号 → POP3/IMAP/SMTP服务) and use \
                the authorisation code (授权码) it shows",
        sender: Some(
            "the From address must be the account that logs in (501/502 otherwise); \"frequency limited\" (550) speaks \
             of how much is sent",
        ),
        listing: Some(QQ_LISTING),
        ..NOBODY
    },
    Preset {
        names: &["exmail.qq", "exmail", "qqexmail"],
        smtp: implicit("smtp.exmail.qq.com", 465),
        pop3: implicit("pop.exmail.qq.com", 995),
        connections: Some(2),
        messages_per_connection: Some(50),
        login: "Tencent Exmail (腾讯企业邮) needs a client password (客户端专用密码) where secure login is on: \
                设置 → 邮箱绑定 → 安全登录",
        sender: Some("the From address must be the account that logs in"),
        listing: Some(QQ_LISTING),
        ..NOBODY
    },
    Preset {
        names: &["163", "netease"],
        smtp: implicit("smtp.163.com", 465),
        pop3: implicit("pop.163.com", 995),
        ..NETEASE
    },
    Preset {
        names: &["126"],
        smtp: implicit("smtp.126.com", 465),
        pop3: implicit("pop.126.com", 995),
        ..NETEASE
    },
    Preset {
        names: &["yeah"],
        smtp: implicit("smtp.yeah.net", 465),
        pop3: implicit("pop.yeah.net", 995),
        ..NETEASE
    },
    Preset {
        names: &["aliyun", "alimail"],
        smtp: implicit("smtp.aliyun.com", 465),
        pop3: implicit("pop3.aliyun.com", 995),
        connections: Some(1),
        login: "Aliyun Mail: turn POP3/SMTP on in the web mail's settings; with secondary verification on, use the \
                authorisation code (授权码) it shows. For mail to many use DirectMail: `provider: aliyun-dm`",
        sender: Some("the From address must be the account that logs in"),
        ..NOBODY
    },
    Preset {
        names: &["aliyun-dm", "directmail"],
        smtp: implicit("smtpdm.aliyun.com", 465),
        login: "DirectMail takes the sender address as login name and the SMTP password set for it in the console \
                (发信地址 → 设置SMTP密码), not the account's",
        sender: Some(
            "the From address must be a sender address (发信地址) of a verified domain in the console",
        ),
        ..NOBODY
    },
    Preset {
        names: &["aliyun-qiye", "qiye.aliyun"],
        smtp: implicit("smtp.qiye.aliyun.com", 465),
        pop3: implicit("pop.qiye.aliyun.com", 995),
        connections: Some(2),
        login: "Alibaba business mail needs third-party clients allowed by the administrator, and a client password \
                (三方客户端安全密码) where that is on",
        sender: Some("the From address must be the account that logs in"),
        ..NOBODY
    },
    Preset {
        names: &["sina"],
        smtp: implicit("smtp.sina.com", 465),
        pop3: implicit("pop.sina.com", 995),
        connections: Some(1),
        login: "Sina Mail takes no account password here: turn POP3/SMTP on (设置区 → 客户端pop/imap/smtp) and use the \
                authorisation code (授权码) it shows",
        sender: Some("the From address must be the account that logs in"),
        ..NOBODY
    },
    Preset {
        names: &["yahoo"],
        smtp: implicit("smtp.mail.yahoo.com", 465),
        pop3: implicit("pop.mail.yahoo.com", 995),
        token_url: Some("https://api.login.yahoo.com/oauth2/get_token"),
        connections: Some(2),
        login: "Yahoo takes no account password here: make an app password under Account Security",
        sender: Some("the From address must be the account that logs in"),
        ..NOBODY
    },
    Preset {
        names: &["icloud", "me", "mac"],
        smtp: starttls("smtp.mail.me.com"),
        connections: Some(2),
        login: "iCloud takes no account password here: make an app-specific password at account.apple.com",
        sender: Some(
            "the From address must be the account's or one of its aliases; 1000 letters a day at most",
        ),
        ..NOBODY
    },
    Preset {
        names: &["zoho"],
        smtp: implicit("smtp.zoho.com", 465),
        pop3: implicit("pop.zoho.com", 995),
        connections: Some(2),
        login: "Zoho: turn SMTP (or POP) access on in the settings, use an app password where two-factor login is \
                on, and `host: smtppro.zoho.com` for an organisation's mailbox",
        sender: Some("the From address must be the account's or a verified alias (553 otherwise)"),
        ..NOBODY
    },
    Preset {
        names: &["fastmail"],
        smtp: implicit("smtp.fastmail.com", 465),
        pop3: implicit("pop.fastmail.com", 995),
        connections: Some(3),
        login: "Fastmail takes no account password here: make an app password under Privacy & Security",
        sender: Some("the From address must be one of the account's identities (551 5.7.1 otherwise)"),
        ..NOBODY
    },
    Preset {
        names: &["ses", "amazon-ses", "aws"],
        smtp: Some(Server {
            host: "email-smtp.{region}.amazonaws.com",
            port: 587,
            tls: TlsMode::StartTls,
            region: Some("us-east-1"),
        }),
        // What a new account out of the sandbox is given; the console says the account's own.
        rate: Some((14, 1)),
        login: "Amazon SES takes SMTP credentials made in the console for this region, not an access key",
        sender: Some(
            "From address or domain must be verified in this region (554 otherwise); in the SES sandbox the \
             recipients too. \"Maximum sending rate exceeded\" (454) needs a lower `rate`",
        ),
        ..NOBODY
    },
    Preset {
        names: &["sendgrid"],
        smtp: starttls("smtp.sendgrid.net"),
        user: Some("apikey"),
        messages_per_connection: Some(100),
        login: "SendGrid's login name is the word `apikey`, the password an API key with \"Mail Send\" permission",
        sender: Some("the From address must be a verified Sender Identity (550 otherwise)"),
        ..NOBODY
    },
    Preset {
        names: &["mailgun"],
        smtp: starttls("smtp.mailgun.org"),
        login: "Mailgun takes SMTP credentials made for the domain (postmaster@…), not the account's; in the EU \
                region write `host: smtp.eu.mailgun.org`",
        sender: Some("the From domain must be the one the credentials were made for"),
        ..NOBODY
    },
    Preset {
        names: &["postmark"],
        smtp: starttls("smtp.postmarkapp.com"),
        login: "Postmark takes the server's API token as login name and as password; for a broadcast stream the \
                header `X-PM-Message-Stream` too",
        sender: Some("the From address must be a confirmed Sender Signature or of a verified domain"),
        ..NOBODY
    },
    Preset {
        names: &["brevo", "sendinblue"],
        smtp: starttls("smtp-relay.brevo.com"),
        login: "Brevo takes the SMTP login and an SMTP key from Settings → SMTP & API, not the account's password \
                nor an API key",
        sender: Some("the From address must be a verified sender or of an authenticated domain"),
        ..NOBODY
    },
    Preset {
        names: &["resend"],
        smtp: starttls("smtp.resend.com"),
        user: Some("resend"),
        login: "Resend's login name is the word `resend`, the password an API key",
        sender: Some("the From domain must be verified at Resend"),
        ..NOBODY
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_preset_and_every_preset_is_complete() {
        let mut seen = std::collections::HashSet::new();
        for preset in ALL {
            assert!(preset.smtp.is_some() || preset.pop3.is_some());
            assert!(!preset.login.is_empty(), "{:?}", preset.names);
            assert!(!preset.login.contains("  "), "{:?}", preset.names);
            for name in preset.names {
                assert!(seen.insert(name), "{name} twice");
                assert_eq!(find(&name.to_uppercase()).map(|found| found.names), Some(preset.names));
            }
        }
        for name in [
            "gmail",
            "outlook",
            "office365",
            "qq",
            "exmail.qq",
            "163",
            "126",
            "yeah",
            "aliyun",
            "sina",
            "yahoo",
            "icloud",
            "zoho",
            "fastmail",
            "ses",
            "sendgrid",
            "mailgun",
            "postmark",
            "brevo",
            "resend",
        ] {
            assert!(find(name).is_some_and(|preset| preset.smtp.is_some()), "{name}");
        }
        for name in ["gmail", "outlook", "qq", "exmail.qq", "163", "126", "aliyun"] {
            assert!(find(name).is_some_and(|preset| preset.pop3.is_some()), "{name}");
        }
        assert!(find("nobody").is_none());
    }

    #[test]
    fn a_host_tells_its_provider() {
        for (host, name) in [
            ("smtp.qq.com", Some("qq")),
            ("POP.163.com.", Some("163")),
            ("email-smtp.eu-west-1.amazonaws.com", Some("ses")),
            ("email-smtp..amazonaws.com", None),
            ("email-smtp.amazonaws.com", None),
            ("mail.example.com", None),
        ] {
            assert_eq!(of_host(host).map(|preset| preset.names[0]), name, "{host}");
        }
    }
}
