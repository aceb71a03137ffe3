# image-reference.sh: takes the name of an image apart, for scripts that source it.

# split_image IMAGE: sets name, tag and digest to the parts of IMAGE, such as registry:5000/ringfence:v1.2.3@sha256:...; one of the last two may
# be empty. It fails if both are.
split_image() {
  local rest=${1%%@*}
  name=$rest tag='' digest=''
  [[ $1 != *@* ]] || digest=${1#*@}
  # What is behind the last colon is a tag, unless a slash is there too: then it is a port.
  if [[ $rest == *:* && ${rest##*:} != */* ]]; then
    name=${rest%:*} tag=${rest##*:}
  fi
  if [[ -z $name || -z $tag$digest ]]; then
    echo "$1 has neither a tag nor a digest" >&2
    return 2
  fi
}
