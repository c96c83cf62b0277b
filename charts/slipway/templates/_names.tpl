{{/* The name of the operator's objects. */}}
{{- define "slipway.operator" -}}
{{ printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The labels that select the operator's pods. */}}
{{- define "slipway.selector" -}}
app.kubernetes.io/name: slipway-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "slipway.labels" -}}
{{ include "slipway.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: slipway
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The reference of an image, as in (list . .Values.image.operator). */}}
{{- define "slipway.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The name of the gateway's objects. */}}
{{- define "slipway.gateway" -}}
{{ printf "%s-gateway" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The labels that select the gateway's pods. */}}
{{- define "slipway.gatewaySelector" -}}
app.kubernetes.io/name: slipway-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "slipway.gatewayLabels" -}}
{{ include "slipway.gatewaySelector" . }}
app.kubernetes.io/component: gateway
app.kubernetes.io/part-of: slipway
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The name of the console's objects. */}}
{{- define "slipway.console" -}}
{{ printf "%s-console" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The labels that select the console's pods. */}}
{{- define "slipway.consoleSelector" -}}
app.kubernetes.io/name: slipway-console
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "slipway.consoleLabels" -}}
{{ include "slipway.consoleSelector" . }}
app.kubernetes.io/component: console
app.kubernetes.io/part-of: slipway
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
