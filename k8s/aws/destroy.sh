#!/usr/bin/env bash
# Takes an installation away: the manifests, then the stack. The bucket, and with Encryption=kms its key, stay.
#
#   k8s/aws/destroy.sh REGION ACCOUNT_ID [--delete-data] [--yes] [--dry-run]
#
# PREFIX, NAMESPACE and OVERLAY are those of deploy.sh. Messages that still wait in the queue or its dead-letter queue are
# work: it refuses while there are any, unless --delete-data is given, which deletes them, every object and version in the
# bucket and the bucket itself, and schedules the key's deletion, for good. Images go in any case. --yes does not ask.
# Exit code: 0 done, 1 something failed (run it again), 2 to mend first, nothing was done.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '==> %s\n' "$*"; }
mend() {
  printf 'destroy.sh: %s\n' "$*" >&2
  exit 2
}
change() { # a command that changes something
  if [ "$dry_run" = yes ]; then
    printf 'would run: %s\n' "$*"
  else
    "$@" || {
      printf 'destroy.sh: failed: %s\n' "$*" >&2
      exit 1
    }
  fi
}

dry_run=no delete_data=no sure=no
arguments=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=yes ;;
    --delete-data) delete_data=yes ;;
    --yes) sure=yes ;;
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    -*) mend "$argument is no option; they are --delete-data, --yes and --dry-run" ;;
    *) arguments+=("$argument") ;;
  esac
done
[ "${#arguments[@]}" -eq 2 ] || mend "usage: destroy.sh REGION ACCOUNT_ID [--delete-data] [--yes] [--dry-run]"
export AWS_REGION=${arguments[0]} AWS_DEFAULT_REGION=${arguments[0]} AWS_PAGER=""
account=${arguments[1]}
[[ $AWS_REGION =~ ^[a-z]{2}(-[a-z]+)+-[0-9]$ ]] || mend "REGION=$AWS_REGION: must be like eu-west-1"
[[ $account =~ ^[0-9]{12}$ ]] || mend "ACCOUNT_ID=$account: an AWS account has twelve digits"
prefix=${PREFIX:-bucket-brigade}
namespace=${NAMESPACE:-bucket-brigade}
overlay=$here/../overlays/${OVERLAY:-production}

for command in aws kubectl; do
  command -v "$command" >/dev/null || mend "$command is not installed"
done
[ -f "$overlay/kustomization.yaml" ] || mend "OVERLAY=${OVERLAY:-production}: there is no such overlay"
caller=$(aws sts get-caller-identity --query Account --output text) || mend "AWS does not take the credentials"
[ "$caller" = "$account" ] || mend "the credentials are of account $caller, and ACCOUNT_ID is $account"
kube=$(kubectl config current-context) || mend "kubectl has no context"

output() {
  aws cloudformation describe-stacks --stack-name "$prefix" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue" | sed '/^None$/d'
}
bucket=$(output BucketName) || mend "there is no stack $prefix in $AWS_REGION"
key=$(output KeyArn)

# ---- is anything left to do?

waiting() { # messages of a queue, in whatever state, by SQS's approximate counts
  aws sqs get-queue-attributes --queue-url "$1" --output text --attribute-names ApproximateNumberOfMessages \
    ApproximateNumberOfMessagesNotVisible ApproximateNumberOfMessagesDelayed \
    --query 'Attributes.[ApproximateNumberOfMessages,ApproximateNumberOfMessagesNotVisible,ApproximateNumberOfMessagesDelayed]' |
    awk '{print $1 + $2 + $3}'
}
messages=$(waiting "$(output QueueUrl)") || mend "the queue cannot be read"
letters=$(waiting "$(output DeadLetterQueueUrl)") || mend "the dead-letter queue cannot be read"
if [ "$messages" != 0 ] || [ "$letters" != 0 ]; then
  [ "$delete_data" = yes ] ||
    mend "$messages messages and $letters dead letters are left: see to them (brigade queue show, brigade dlq list), or say --delete-data"
fi

say "deletes from $kube what k8s/overlays/${OVERLAY:-production} has in namespace $namespace"
say "deletes stack $prefix of account $account in $AWS_REGION, with its queues ($messages messages, $letters dead letters) and images"
if [ "$delete_data" = yes ]; then
  say "deletes bucket $bucket with everything in it${key:+, and key $key in 7 days}"
else
  say "keeps bucket $bucket${key:+ and key $key}"
fi
if [ "$sure" = no ] && [ "$dry_run" = no ]; then
  printf 'Type the prefix (%s) to go on: ' "$prefix"
  read -r answer || answer=""
  [ "$answer" = "$prefix" ] || mend "not confirmed"
fi

trap 'exit 1' ERR

# ---- Kubernetes first: workers hand back what they hold while there is a queue, and KEDA removes its finalizers

say "manifests"
kinds=scaledobjects,scaledjobs
if [ "$dry_run" = yes ]; then
  echo "would run: kubectl -n $namespace delete $kinds -l app.kubernetes.io/part-of=bucket-brigade"
else
  kubectl -n "$namespace" delete "$kinds" -l app.kubernetes.io/part-of=bucket-brigade --ignore-not-found \
    --timeout=120s || say "KEDA's resources cannot be deleted (is KEDA installed?); going on"
fi
change kubectl -n "$namespace" delete job bucket-brigade-deploy-check --ignore-not-found
change kubectl delete -k "$overlay" --ignore-not-found --timeout=300s

# Before the stack, which knows the bucket's name: what fails here can be run again.
if [ "$delete_data" = yes ]; then
  say "objects of $bucket"
  if [ "$dry_run" = yes ]; then
    echo "would delete every object, version and unfinished upload of $bucket"
  else
    list=$(mktemp)
    trap 'rm -f "$list"' EXIT
    # A thousand a call is what DeleteObjects takes.
    while :; do
      # shellcheck disable=SC2016 # the backticks are JMESPath's literals
      aws s3api list-object-versions --bucket "$bucket" --max-items 1000 --output json \
        --query '{Objects: [Versions || `[]`, DeleteMarkers || `[]`][].{Key: Key, VersionId: VersionId}, Quiet: `true`}' >"$list"
      grep -q '"Key"' "$list" || break
      refused=$(aws s3api delete-objects --bucket "$bucket" --delete "file://$list" --query 'Errors[].Message' --output text)
      case $refused in "" | None) ;; *) printf 'destroy.sh: %s\n' "$refused" >&2 && exit 1 ;; esac
    done
    aws s3api list-multipart-uploads --bucket "$bucket" --output text --query 'Uploads[].[UploadId,Key]' |
      while read -r upload name; do
        case $upload in "" | None) continue ;; esac
        aws s3api abort-multipart-upload --bucket "$bucket" --key "$name" --upload-id "$upload"
      done
  fi
fi

say "stack"
change aws cloudformation delete-stack --stack-name "$prefix"
change aws cloudformation wait stack-delete-complete --stack-name "$prefix"

if [ "$delete_data" = yes ]; then
  say "bucket $bucket${key:+ and key $key}"
  change aws s3api delete-bucket --bucket "$bucket"
  [ -z "$key" ] || change aws kms schedule-key-deletion --key-id "$key" --pending-window-in-days 7
fi
say "done"
