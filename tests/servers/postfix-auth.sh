#!/bin/sh
# Debian's Postfix on loopback, with Dovecot's SASL behind it, as tests judge by it. Needs root, and the
# packages postfix and dovecot-core; touches nothing outside DIR.
#
#   postfix-auth.sh start DIR PORT     SMTP and STARTTLS on PORT, TLS from the first byte on PORT+1
#   postfix-auth.sh stop DIR
#
# User: ada, password: DIR/password; XOAUTH2 and OAUTHBEARER take the token in DIR/token; DIR/stale-token
# has expired. Trust DIR/ca.pem; the certificate is for localhost and 127.0.0.1.
# Mail goes to DIR/mail/inbox/new, whoever it is for (DELIVER=discard: nowhere); what Postfix says about it to
# DIR/maillog. STRICT=1: neither pipelining before its time nor data ahead of replies is forgiven.
# MECHANISMS: what Dovecot offers.
set -eu

command=$1
dir=$2

stop() {
    [ ! -f "$dir/postfix/main.cf" ] || postfix -c "$dir/postfix" stop >/dev/null 2>&1 || true
    [ ! -f "$dir/dovecot.conf" ] || doveadm -c "$dir/dovecot.conf" stop >/dev/null 2>&1 || true
}

if [ "$command" = stop ]; then
    stop
    exit 0
fi
port=$3
mechanisms=${MECHANISMS:-plain login cram-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer}

mkdir -p "$dir/postfix" "$dir/spool" "$dir/data" "$dir/mail" "$dir/run" "$dir/state" "$dir/keys/default/HS256"
chmod 755 "$dir"
chown postfix "$dir/data"
chown nobody "$dir/mail"

# A certificate from a CA of its own.
if [ ! -f "$dir/cert.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=test CA" \
        -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=localhost" \
        -keyout "$dir/cert.key" -out "$dir/cert.csr" 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$dir/cert.ext"
    openssl x509 -req -in "$dir/cert.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
        -extfile "$dir/cert.ext" -out "$dir/cert.pem" 2>/dev/null
fi

# A password with what often goes wrong in it, and tokens that Dovecot checks by a key (RFC 7519, HS256).
printf 'pa ss,w=ord+/"ü' >"$dir/password"
printf 'ada:{PLAIN}%s\n' "$(cat "$dir/password")" >"$dir/users"
secret=$(openssl rand -hex 32)
printf '%s' "$secret" | openssl base64 -A >"$dir/keys/default/HS256/default"
url64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
token() {
    head=$(printf '{"alg":"HS256","typ":"JWT"}' | url64)
    body=$(printf '{"sub":"ada","iat":%s,"nbf":%s,"exp":%s}' "$(($1 - 7200))" "$(($1 - 7200))" "$1" | url64)
    sign=$(printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -hmac "$secret" -binary | url64)
    printf '%s.%s.%s' "$head" "$body" "$sign"
}
now=$(date +%s)
token $((now + 3600)) >"$dir/token"
token $((now - 3600)) >"$dir/stale-token"
chmod 644 "$dir/users" "$dir/keys/default/HS256/default"

cat >"$dir/oauth2.conf" <<END
introspection_mode = local
local_validation_key_dict = fs:posix:prefix=$dir/keys/
username_attribute = sub
END
cat >"$dir/dovecot.conf" <<END
base_dir = $dir/run
state_dir = $dir/state
log_path = $dir/dovecot.log
protocols =
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
auth_mechanisms = $mechanisms
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = $dir/oauth2.conf
}
passdb {
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
  args = username_format=%u $dir/users
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=$dir
}
service auth {
  unix_listener $dir/spool/private/auth {
    mode = 0666
  }
}
# A wrong password would make the next login wait.
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
END

cat >"$dir/postfix/main.cf" <<END
compatibility_level = 3.6
queue_directory = $dir/spool
data_directory = $dir/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = $dir/maillog
maillog_file_prefixes = $dir
myhostname = localhost
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
mydestination =
alias_maps =
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_security_options = noanonymous
smtpd_tls_security_level = may
smtpd_tls_cert_file = $dir/cert.pem
smtpd_tls_key_file = $dir/cert.key
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
in_flow_delay = 0
message_size_limit = 104857600
mailbox_size_limit = 0
default_transport = ${DELIVER:-virtual}
virtual_transport = ${DELIVER:-virtual}
virtual_mailbox_domains = static:all
virtual_mailbox_base = $dir/mail
virtual_mailbox_maps = static:inbox/
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
END
if [ -n "${STRICT:-}" ]; then
    cat >>"$dir/postfix/main.cf" <<END
smtpd_forbid_unauth_pipelining = yes
smtpd_data_restrictions = reject_unauth_pipelining
END
fi
cat >"$dir/postfix/master.cf" <<END
127.0.0.1:$port inet n - n - - smtpd
127.0.0.1:$((port + 1)) inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
END

trap stop INT TERM
mkdir -p "$dir/spool/private"
chown postfix "$dir/spool/private"
chmod 700 "$dir/spool/private"
dovecot -c "$dir/dovecot.conf"
postfix -c "$dir/postfix" start >"$dir/start.log" 2>&1 || { cat "$dir/start.log" "$dir/maillog" >&2; stop; exit 1; }
