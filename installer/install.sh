#!/bin/sh
# Makes this host a node of a Rubato cluster: fetches the agent, checks it, writes its configuration and starts it.
# May be run again at any time: it changes what differs and starts what does not run.
#
#   RUBATO_TOKEN=rbtj_... sh install.sh --url https://coordinator:7600
#   sh install.sh --url https://coordinator:7600 --token-file FILE [--label key=value]... [--address ADDRESS]
#                 [--engine docker|process|auto] [--install-docker]
#
# Settings may also come from RUBATO_URLS, RUBATO_LABELS (key=value, separated by blanks or new lines), RUBATO_ADDRESS,
# RUBATO_ENGINE, RUBATO_INSTALL_DOCKER=1, RUBATO_SHA256_X64, RUBATO_SHA256_ARM64. RUBATO_PREFIX puts everything under another root.
set -eu
umask 077

say() { printf 'rubato: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

sha256_of() { # FILE or - for stdin
  if has sha256sum; then sha256sum "$1" | cut -d' ' -f1
  elif has shasum; then shasum -a 256 "$1" | cut -d' ' -f1
  else die 'neither sha256sum nor shasum is here'; fi
}

# get URL FILE TRUST: one try. TRUST is "system", "none" (only for what is checked by its digest) or a CA file.
get() {
  if has curl; then
    case $3 in
      system) curl -fsSL --connect-timeout 10 --speed-limit 1 --speed-time 60 -o "$2" "$1" ;;
      none) curl -fsSk --connect-timeout 10 --max-time 60 -o "$2" "$1" ;;
      *) curl -fsS --connect-timeout 10 --speed-limit 1 --speed-time 60 --cacert "$3" -o "$2" "$1" ;;
    esac
  elif has wget; then
    case $3 in
      system) wget -q -T 60 -t 1 -O "$2" "$1" ;;
      none) wget -q -T 60 -t 1 --no-check-certificate -O "$2" "$1" ;;
      *) wget -q -T 60 -t 1 --ca-certificate="$3" -O "$2" "$1" ;;
    esac
  else die 'neither curl nor wget is here'; fi
}

# First certificate of a PEM file, in DER. Only what was checked by its digest is trusted, not what stands behind it in the file.
first_certificate() {
  sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/{/-----END/q;/-----BEGIN/d;p;}' "$1" | base64 -d 2>/dev/null || true
}

# Plain HTTP can be changed on the way: it is for this host only.
is_safe_plain() {
  case $1 in
    https://* | http://localhost:* | 'http://[::1]:'*) case $1 in *@*) return 1 ;; esac; return 0 ;;
  esac
  plain_host=${1#http://}
  plain_host=${plain_host%%[/:]*}
  case $plain_host in
    *[!0-9.]*) return 1 ;;
    127.*) case $1 in *@*) return 1 ;; esac ;;
    *) return 1 ;;
  esac
}

# again COMMAND...: repeats it with growing waits until it succeeds; gives up when the join token must have expired.
again() {
  again_tries=0
  again_wait=1
  while ! "$@"; do
    again_tries=$((again_tries + 1))
    [ "$again_tries" -lt "${RUBATO_TRIES:-40}" ] || return 1
    say "no success yet, trying again in $again_wait s"
    sleep "$again_wait"
    again_wait=$((again_wait * 2))
    [ "$again_wait" -le 30 ] || again_wait=30
  done
}

# Tries each coordinator once; sets COORDINATOR and TRUST.
find_coordinator() {
  for candidate in $URLS; do
    candidate=${candidate%/}
    if [ "$DIGEST" = plain ]; then
      is_safe_plain "$candidate" || { say "$candidate is refused: plain HTTP is for loopback only"; continue; }
      if get "$candidate/v1/agent-binary/linux-$ARCH.sha256" "$WORK/sum" system; then
        COORDINATOR=$candidate TRUST=system
        return 0
      fi
      continue
    fi
    case $candidate in
      https://*) ;;
      *) say "$candidate is refused: the join token demands TLS"; continue ;;
    esac
    get "$candidate/v1/ca" "$WORK/ca.given" none || continue
    first_certificate "$WORK/ca.given" >"$WORK/ca.der"
    { echo '-----BEGIN CERTIFICATE-----'; base64 <"$WORK/ca.der"; echo '-----END CERTIFICATE-----'; } >"$WORK/ca.pem"
    if [ "$(sha256_of "$WORK/ca.der")" != "$DIGEST" ]; then
      say "$candidate is refused: its certificate authority is not the one that the join token names"
      continue
    fi
    if get "$candidate/v1/agent-binary/linux-$ARCH.sha256" "$WORK/sum" "$WORK/ca.pem"; then
      COORDINATOR=$candidate TRUST=$WORK/ca.pem
      return 0
    fi
  done
  return 1
}

fetch_agent() {
  find_coordinator || return 1
  wanted=$EXPECTED
  [ -n "$wanted" ] || wanted=$(cut -d' ' -f1 <"$WORK/sum")
  case $wanted in
    *[!0-9a-f]* | '') say 'the coordinator gave no checksum'; return 1 ;;
  esac
  if [ -x "$BIN" ] && [ "$(sha256_of "$BIN")" = "$wanted" ]; then return 0; fi
  get "$COORDINATOR/v1/agent-binary/linux-$ARCH" "$BIN.new" "$TRUST" || return 1
  if [ "$(sha256_of "$BIN.new")" != "$wanted" ]; then
    rm -f "$BIN.new"
    say 'the agent that was fetched has the wrong checksum'
    return 1
  fi
  chmod 755 "$BIN.new"
  mv -f "$BIN.new" "$BIN"
  CHANGED=1
}

# The agent needs libatomic, which small Debian and Ubuntu images lack. Asks the loader rather than starting the agent.
install_libatomic() {
  case $(LD_TRACE_LOADED_OBJECTS=1 "$BIN" 2>/dev/null || true) in
    *libatomic.so.1*'not found'*) ;;
    *) return 0 ;;
  esac
  [ "$(id -u)" = 0 ] && has apt-get || die 'the agent needs libatomic.so.1: install it (Debian, Ubuntu: libatomic1) and run this again'
  say 'installing libatomic1'
  apt_install libatomic1 || die 'libatomic1 cannot be installed'
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive
  export DEBIAN_FRONTEND
  again apt-get -q update || die 'the package lists cannot be fetched'
  again apt-get -q -y --no-install-recommends install "$@"
}

# quoted TEXT: as a YAML scalar.
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"; }

write_config() {
  {
    echo '# Written by the Rubato installer.'
    echo 'urls:'
    for url in $URLS; do echo "  - $(quoted "${url%/}")"; done
    echo "stateDir: $(quoted "$STATE")"
    echo "tokenFile: $(quoted "$TOKEN_PATH")"
    [ -z "$ENGINE" ] || echo "engine: $(quoted "$ENGINE")"
    [ -z "$ADDRESS" ] || echo "address: $(quoted "$ADDRESS")"
    if [ -n "$LABELS" ]; then
      echo 'labels:'
      printf '%s\n' "$LABELS" | tr ' ' '\n' | while IFS= read -r label; do
        [ -z "$label" ] || echo "  $(quoted "${label%%=*}"): $(quoted "${label#*=}")"
      done
    fi
  } >"$CONFIG.new"
  if [ -f "$CONFIG" ] && cmp -s "$CONFIG" "$CONFIG.new"; then rm -f "$CONFIG.new"; return 0; fi
  chmod 644 "$CONFIG.new"
  mv -f "$CONFIG.new" "$CONFIG"
  CHANGED=1
}

install_docker() {
  if has docker && docker info >/dev/null 2>&1; then return 0; fi
  has apt-get || die 'a Docker engine can be installed on Debian and Ubuntu only; install one and run this again'
  say 'installing the Docker engine'
  apt_install docker.io iptables || die 'the Docker engine cannot be installed'
}

write_unit() {
  cat >"$UNIT.new" <<'UNIT'
[Unit]
Description=Rubato agent
Documentation=file:///etc/rubato/agent.yaml
Wants=network-online.target
After=network-online.target docker.service

[Service]
ExecStart=/usr/local/bin/rubato-agent --config /etc/rubato/agent.yaml
Restart=always
RestartSec=2
# 78: the configuration cannot be used; starting again would not help.
RestartPreventExitStatus=78
# Only the agent is stopped: what it runs outlives it, and is adopted by the next one. So does the watchdog of strict singletons.
KillMode=process
OOMScoreAdjust=-900
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
UNIT
  chmod 644 "$UNIT.new"
  mv -f "$UNIT.new" "$UNIT"
}

is_running() { [ -f "$PID_PATH" ] && kill -0 "$(cat "$PID_PATH")" 2>/dev/null; }

start_agent() {
  if [ -z "$PREFIX" ] && [ -d /run/systemd/system ]; then
    write_unit
    systemctl daemon-reload
    systemctl enable rubato-agent.service >/dev/null 2>&1 || say 'the agent cannot be enabled for the next boot'
    if [ "$CHANGED" = 1 ]; then systemctl restart rubato-agent.service; else systemctl start rubato-agent.service; fi
    return 0
  fi
  if is_running; then
    [ "$CHANGED" = 1 ] || return 0
    kill "$(cat "$PID_PATH")" 2>/dev/null || true
    sleep 1
  fi
  detach=nohup
  ! has setsid || detach='nohup setsid'
  # No service manager here: a small loop starts the agent again when it dies. 0: it was told to leave; 78: bad configuration.
  $detach sh -c '
    echo $$ >"$1"
    trap "kill \$child 2>/dev/null; exit 0" TERM INT
    while :; do
      "$2" --config "$3" &
      child=$!
      code=0
      wait $child || code=$?
      case $code in 0 | 78) rm -f "$1"; exit $code ;; esac
      sleep 2
    done' rubato-agent-loop "$PID_PATH" "$BIN" "$CONFIG" </dev/null >>"$LOG" 2>&1 &
}

# The token is spent once the node has joined; its copies go all the same.
forget_token() {
  waited=0
  while [ ! -f "$STATE/identity.json" ]; do
    if [ "$waited" -ge "${RUBATO_JOIN_WAIT:-120}" ]; then
      say "the agent runs, but has not joined yet; it keeps trying. Its log: journalctl -u rubato-agent, or $LOG"
      return 0
    fi
    sleep 1
    waited=$((waited + 1))
  done
  rm -f "$TOKEN_PATH" "$PREFIX"/run/rubato/setup.sh
  for copy in "$PREFIX"/var/lib/cloud/instances/*/user-data.txt* "$PREFIX"/var/lib/cloud/instances/*/cloud-config.txt \
    "$PREFIX"/var/lib/cloud/instances/*/scripts/part-*; do
    if [ -f "$copy" ] && grep -q 'rbtj_' "$copy" 2>/dev/null; then rm -f "$copy"; fi
  done
  say 'this host is a node now'
}

main() {
  PREFIX=${RUBATO_PREFIX:-}
  URLS=${RUBATO_URLS:-} LABELS=${RUBATO_LABELS:-} ADDRESS=${RUBATO_ADDRESS:-} ENGINE=${RUBATO_ENGINE:-}
  token_file='' docker=${RUBATO_INSTALL_DOCKER:-0}
  while [ $# -gt 0 ]; do
    case $1 in
      --url) URLS="$URLS ${2:?--url needs a value}"; shift ;;
      --token-file) token_file=${2:?--token-file needs a value}; shift ;;
      --label) LABELS="$LABELS ${2:?--label needs a value}"; shift ;;
      --address) ADDRESS=${2:?--address needs a value}; shift ;;
      --engine) ENGINE=${2:?--engine needs a value}; shift ;;
      --install-docker) docker=1 ;;
      *) die "unknown argument $1" ;;
    esac
    shift
  done
  [ -n "$PREFIX" ] || [ "$(id -u)" = 0 ] || die 'run this as root'
  TOKEN=${RUBATO_TOKEN:-}
  # The agent must not inherit the token: its environment can be read by what runs beside it.
  unset RUBATO_TOKEN
  if [ -n "$token_file" ]; then TOKEN=$(cat "$token_file"); fi
  case $TOKEN in
    rbtj_*_*_*) ;;
    *) die 'a join token is needed: RUBATO_TOKEN or --token-file' ;;
  esac
  [ -n "$URLS" ] || die 'the URL of the coordinator is needed: --url or RUBATO_URLS'
  DIGEST=${TOKEN##*_}
  case $(uname -m) in
    x86_64 | amd64) ARCH=x64 EXPECTED=${RUBATO_SHA256_X64:-} ;;
    aarch64 | arm64) ARCH=arm64 EXPECTED=${RUBATO_SHA256_ARM64:-} ;;
    *) die "there is no agent for $(uname -m)" ;;
  esac
  BIN=$PREFIX/usr/local/bin/rubato-agent
  CONFIG=$PREFIX/etc/rubato/agent.yaml
  TOKEN_PATH=$PREFIX/etc/rubato/join.token
  STATE=$PREFIX/var/lib/rubato-agent
  UNIT=$PREFIX/etc/systemd/system/rubato-agent.service
  PID_PATH=$PREFIX/run/rubato-agent.pid
  LOG=$PREFIX/var/log/rubato-agent.log
  CHANGED=0
  (umask 022 && mkdir -p "$PREFIX/usr/local/bin" "$PREFIX/run" "$PREFIX/var/log" "$PREFIX/etc/rubato")
  mkdir -p "$STATE"
  WORK=$(mktemp -d)
  trap 'rm -rf "$WORK"' EXIT
  trap 'exit 1' HUP INT TERM

  [ "$docker" != 1 ] || install_docker
  again fetch_agent || die 'no coordinator gave us its agent'
  install_libatomic
  printf '%s\n' "$TOKEN" >"$TOKEN_PATH.new"
  mv -f "$TOKEN_PATH.new" "$TOKEN_PATH"
  write_config
  start_agent
  forget_token
}

main "$@"
